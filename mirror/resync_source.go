// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/internal/block"
)

// The source's half of a resync.

// dirty takes the target's blocks into the union.
func (r *resync) dirty(f *Frame) error {
	e := r.engine
	if e.session.state != Comparing || !r.source || r.needs {
		return errSequence
	}
	if err := e.markExtents(f.Payload); err != nil {
		return err
	}
	if f.Flags&flagLast == 0 {
		return nil
	}
	if r.full {
		e.dirty.Set(0, e.dirty.Blocks())
	}
	r.needs = true
	r.claim()
	return nil
}

// claim goes on when this node has the right to be the only whole copy (rule
// 18), and asks for it otherwise.
func (r *resync) claim() {
	e := r.engine
	if !r.needs {
		return
	}
	if e.right != RightAlone && !mutated("a resync needs the right to be alone") {
		e.seekAlone()
		return
	}
	r.needs = false
	session := e.session.id
	still := func() bool { return e.session.id == session && e.session.state == Comparing }
	// What this node took from the other while that served may be in a cache, with
	// no intent of its own. It is flushed before a bit goes because the target has
	// it durably (rule 5): else this node could lose it, and nobody would know.
	durable := func() {
		if still() {
			e.meta.wantPages(func() {
				if still() {
					r.start()
				}
			})
		}
	}
	switch {
	case mutated("the union is durable first"):
		r.start()
	case mutated("a source flushes first"):
		durable()
	default:
		e.rounds.whenDone(e, durable)
	}
}

// start: the union is durable here (rule 6).
func (r *resync) start() {
	e := r.engine
	r.id++
	flags := uint8(0)
	if r.full {
		flags = flagFull
	}
	e.session.data.pushCopy(&Frame{Type: frameStart, Flags: flags, Session: e.session.id, Sequence: r.id}, r.message())
}

// ready: the target is one, durably. Changes go to both from here on.
func (r *resync) ready(f *Frame) error {
	e := r.engine
	if e.session.state != Comparing || !r.source || f.Sequence != r.id {
		return errSequence
	}
	r.active, r.cursor, r.saved = true, 0, 0
	r.progress = Progress{Total: e.dirty.Count(), Began: e.now}
	r.beside, e.window.latency = 1, 0
	e.become(Resyncing, "source for "+e.cfg.Peer)
	e.raiseMoment()
	e.thaw()
	r.pump()
	return nil
}

// copyRun is one run of blocks on its way to the target.
type copyRun struct {
	resync       *resync
	lock         lock
	task         block.Task
	id           uint64
	first, count int64
	buffer       []byte // 8 bytes for the first block's number, then the blocks
	sent         bool
	since        time.Duration // sent
	dead         bool          // the resync ended while the disk was reading
	next         *copyRun
}

// pump keeps enough runs under way, and ends the resync when none is left.
func (r *resync) pump() {
	e := r.engine
	if !r.active || e.session.state != Resyncing {
		return
	}
	most, blocks := idleRuns, int64(maxCopyBlocks)
	if e.window.count > 0 || e.ops.used > 0 {
		most, blocks = r.beside, busyCopyBlocks
	}
	for len(r.runs) < most {
		first, count, ok := e.dirty.Next(r.cursor, blocks)
		if !ok {
			if len(r.runs) > 0 {
				return // their bits are still set
			}
			if r.cursor == 0 {
				r.end()
				return
			}
			r.cursor = 0
			continue
		}
		r.cursor = first + count
		r.begin(first, count)
	}
}

func (r *resync) begin(first, count int64) {
	e := r.engine
	c := r.free
	if c == nil {
		c = &copyRun{resync: r, buffer: make([]byte, 8+maxCopyBlocks*block.Size)}
		c.lock.owner = c
	} else {
		r.free = c.next
	}
	r.nextID++
	c.id, c.first, c.count, c.sent, c.dead, c.next = r.nextID, first, count, false, false, nil
	r.runs = append(r.runs, c)
	c.lock.start = first * block.Size
	c.lock.end = min(c.lock.start+count*block.Size, e.size)
	if e.locks.acquire(&c.lock) {
		c.locked()
	}
}

// locked: nobody changes the run; read it.
func (c *copyRun) locked() {
	length := c.lock.end - c.lock.start
	c.task = block.Task{
		Op: block.Read, Offset: c.lock.start, Length: length, Data: c.buffer[8 : 8+length], Drop: true, Engine: c,
	}
	if mutated("a copy holds the range lock") {
		c.resync.engine.unlock(&c.lock)
	}
	c.resync.reads++
	c.resync.engine.do(&c.task)
}

// finished: the run was read; send it.
func (c *copyRun) finished(t *block.Task) {
	r := c.resync
	e := r.engine
	r.reads--
	switch {
	case c.dead:
		r.put(c)
		return
	case t.Err != nil:
		// This is the only whole copy: it is not given up for one block.
		c.sent = true // the disk is done with it
		e.becomeDisconnected(fmt.Sprintf("read for resync at byte %d: %v", t.Offset, t.Err))
		return
	}
	c.sent, c.since = true, e.now
	f := Frame{Type: frameCopy, Session: e.session.id, Sequence: c.id, Count: uint32(c.count)}
	binary.BigEndian.PutUint64(c.buffer, uint64(c.first))
	payload := c.buffer[:8+t.Length]
	if t.Zeroes || isZero(t.Data) {
		f.Flags, payload = flagZero, c.buffer[:8]
		r.progress.Zeroes += c.count
	} else if e.cfg.Compress && e.has(featureS2) && e.session.bulk.slow(e.now) {
		if packed := r.packer.pack(c.buffer[:8], t.Data); packed != nil {
			f.Flags = flagPacked
			r.progress.SentBytes += int64(len(packed))
			e.session.bulk.pushCopy(&f, packed)
			return
		}
	}
	r.progress.SentBytes += int64(len(payload))
	e.session.bulk.push(&f, payload)
}

// copied: runs are durable at the target; their bits go, then their locks
// (rule 5).
func (r *resync) copied(f *Frame) error {
	e := r.engine
	if !r.active || len(f.Payload)%8 != 0 {
		return errSequence
	}
	if s := block.Status(f.Count); s != block.OK {
		return peerFailed(s)
	}
	for p := f.Payload; len(p) > 0; p = p[8:] {
		id := binary.BigEndian.Uint64(p)
		at := slices.IndexFunc(r.runs, func(c *copyRun) bool { return c.id == id && c.sent })
		if at < 0 {
			return errSequence
		}
		c := r.runs[at]
		r.runs = slices.Delete(r.runs, at, at+1)
		e.dirty.Clear(c.first, c.count)
		r.progress.Done += c.count
		r.engine.counters.ResyncedBytes += c.count * block.Size
		r.saved += c.count
		e.unlock(&c.lock)
		r.put(c)
	}
	e.moments.due = true
	r.adapt()
	if r.saved >= saveEvery {
		r.saved = 0
		e.meta.wantPages(nil)
	}
	r.pump()
	return nil
}

// adapt lets the rate follow the latency of clients' writes. One run always
// goes on, so that a resync ends under any load.
func (r *resync) adapt() {
	switch latency := r.engine.window.latency; {
	case latency > slowAnswer:
		r.beside = max(r.beside-1, 1)
	case latency < quickAnswer:
		r.beside = min(r.beside+1, besideRuns)
	}
}

func (r *resync) put(c *copyRun) {
	c.task.Data = nil
	c.next, r.free = r.free, c
}

// end flushes both disks once more, so that nothing is left that was begun
// before the resync, and then lets the target adopt the generation. From then
// on the target may be an equal without our knowledge, so first the base goes,
// durably: whatever is acknowledged alone later gets a generation of its own
// (rule 9).
func (r *resync) end() {
	e := r.engine
	if r.ending {
		return
	}
	r.ending = true
	session := e.session.id
	e.rounds.whenDone(e, func() {
		if e.session.id != session || !r.active {
			return
		}
		if r.ending = e.dirty.Count() == 0; !r.ending {
			r.pump()
			return
		}
		if !mutated("the base goes before the end of a resync") {
			e.header.Base = bitmap.Generation{}
		}
		e.meta.wantHeader(func() {
			if e.session.id == session && r.active {
				e.session.data.pushCopy(&Frame{Type: frameFinish, Session: session, Sequence: r.id}, r.message())
			}
		})
	})
}

// finished: the target is an equal. If this message is lost the next session
// finds equal generations; if finish was lost, a target that lacks nothing.
func (r *resync) finished(f *Frame) error {
	e := r.engine
	if e.session.state != Resyncing || !r.source || f.Sequence != r.id {
		return errSequence
	}
	r.active = false
	r.progress.Ended = e.now
	e.meta.wantPages(nil)
	e.becomeMirroring("resync of " + e.cfg.Peer + " is done")
	return nil
}
