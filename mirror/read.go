// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"github.com/twinbd/twinbd/internal/block"
)

// read carries out a read under its shared lock. Because the lock waits for
// every overlapping write in flight, what is read is on both disks, or dirty
// under a right to be alone: it survives a takeover (rule 7).
func (e *Engine) read(o *op) {
	if !e.primary && !o.follows {
		e.answer(o, e.demoted)
		return
	}
	switch e.mode() {
	case modeFrozen:
		e.frozen.push(o)
	case modeDead:
		e.answer(o, block.IOError)
	case modeRemote:
		e.remote.read(e, o)
	default:
		o.local = true
		o.task = block.Task{Op: block.Read, Offset: o.offset, Length: o.length, Data: o.data, Engine: o}
		e.do(&o.task)
	}
}

// readDone: a disk that cannot be read is failed where there is another copy;
// the last good copy is not given up for one block.
func (e *Engine) readDone(o *op, t *block.Task) {
	if t.Err == nil {
		e.answer(o, block.OK)
		return
	}
	if e.local == diskGood && e.session.state != Mirroring {
		e.counters.ReadErrors++
		e.answer(o, block.StatusOf(t.Err))
		return
	}
	e.localFailed("read", t.Err)
	e.read(o)
}

// cache asks the local disk to read ahead.
func (e *Engine) cache(o *op) {
	if e.local == diskFailed {
		e.answer(o, block.OK)
		return
	}
	o.local = true
	o.task = block.Task{Op: block.Cache, Offset: o.offset, Length: o.length, Engine: o}
	e.do(&o.task)
}

// blockStatus answers what is asked about a range: what is dirty is known
// here; what is allocated only the disk could say, and a mirror of two unlike
// disks promises nothing of it, so all is said to be data.
func (e *Engine) blockStatus(o *op) {
	r := o.req
	if r.Contexts&block.ContextAllocation != 0 {
		r.Extents[0] = append(r.Extents[0][:0], block.Extent{Length: uint32(o.length)})
	}
	if r.Contexts&block.ContextDirty != 0 {
		most := cap(r.Extents[1])
		if r.Flags&block.ReqOne != 0 || most == 0 {
			most = 1
		}
		r.Extents[1] = e.dirtyExtents(r.Extents[1][:0], o.offset, o.length, most)
	}
	e.answer(o, block.OK)
}

// dirtyExtents describes a range by runs of dirty and clean bytes, at most a
// number of them; what does not fit is left to the next request.
func (e *Engine) dirtyExtents(out []block.Extent, offset, length int64, most int) []block.Extent {
	end := offset + length
	for at := offset; at < end && len(out) < most; {
		first, count, ok := e.dirty.Next(at/block.Size, maxExtentCount)
		start, stop := end, end
		if ok {
			start, stop = min(max(first*block.Size, at), end), min((first+count)*block.Size, end)
		}
		if start > at {
			out = append(out, block.Extent{Length: uint32(start - at)})
			at = start
			continue
		}
		out = append(out, block.Extent{Length: uint32(stop - at), Flags: block.ExtentDirty})
		at = stop
	}
	return out
}
