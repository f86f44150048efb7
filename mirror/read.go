// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"github.com/twinbd/twinbd/internal/block"
)

// read carries out a read under its shared lock. Because the lock waits for
// every overlapping write in flight, what is read is on both disks, or dirty
// under a right to be alone: it survives a takeover (rule 7).
func (e *Engine) read(o *op) {
	if !e.owed(o) {
		e.giveUp(o)
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
		e.assign(o, block.Task{Op: block.Read, Offset: o.offset, Length: o.length, Data: o.data})
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
	e.assign(o, block.Task{Op: block.Cache, Offset: o.offset, Length: o.length})
}

// blockStatus answers what is asked about a range: what is dirty is known
// here, what is allocated the local disk says. Without one all is data.
func (e *Engine) blockStatus(o *op) {
	r := o.req
	if r.Contexts&block.ContextDirty != 0 {
		r.Extents[1] = e.dirtyExtents(r.Extents[1][:0], o.offset, o.length, room(r, 1))
	}
	switch {
	case r.Contexts&block.ContextAllocation == 0:
		e.answer(o, block.OK)
	case e.local == diskFailed:
		r.Extents[0] = append(r.Extents[0][:0], block.Extent{Length: uint32(o.length)})
		e.answer(o, block.OK)
	default:
		e.assign(o, block.Task{
			Op: block.BlockStatus, Offset: o.offset, Length: o.length, Extents: r.Extents[0][:0:room(r, 0)],
		})
	}
}

// room is how many extents a request wants of one context, at least one.
func room(r *block.Request, context int) int {
	if r.Flags&block.ReqOne != 0 {
		return min(1, cap(r.Extents[context]))
	}
	return cap(r.Extents[context])
}

// allocated takes the local disk's answer to a question about its holes.
func (e *Engine) allocated(o *op, t *block.Task) {
	o.req.Extents[0] = t.Extents
	e.answer(o, block.StatusOf(t.Err))
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
