// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"hash/crc32"

	"github.com/twinbd/twinbd/internal/block"
)

// mode says where a request is carried out. It follows from the session, the
// right and the local disk; whoever changes one of these calls thaw.
type mode uint8

const (
	modeFrozen    mode = iota // clients wait, nothing fails
	modeReplicate             // on both disks
	modeAlone                 // on the local disk; the peer's blocks become dirty
	modeRemote                // on the peer's disk, the local one has failed
	modeDead                  // on none: EIO
)

func (e *Engine) mode() mode {
	switch {
	case e.local == diskFailed:
		return e.remote.mode()
	case e.session.replicates():
		return modeReplicate
	case e.right == RightAlone:
		return modeAlone
	}
	return modeFrozen
}

// thaw lets everything that waited for another mode try again.
func (e *Engine) thaw() {
	waiting := e.frozen.take()
	for o := waiting.pop(); o != nil; o = waiting.pop() {
		if o.kind == block.Read {
			e.read(o)
		} else {
			e.run = append(e.run, o)
		}
	}
	e.acknowledgeHeld()
}

// launch sends what was admitted to the peer, as one run, and then gives it to
// the local disk. The order of the run is the order on both. What finds no room
// waits, and nobody overtakes it.
func (e *Engine) launch() {
	stalled := &e.window.stalled
	for _, o := range e.run {
		stalled.push(o)
	}
	e.run = e.run[:0]
	for m := e.mode(); e.mayRoute(m); {
		e.route(stalled.pop(), m)
	}
	if len(e.run) == 0 {
		return
	}
	if !e.run[0].lone {
		e.sendRun(e.run)
	}
	if e.local == diskGood {
		for _, o := range e.run {
			e.writeLocal(o)
		}
	}
	e.run = e.run[:0]
}

// mayRoute reports whether the first change that stalled may go on: there is
// room, or nobody waits for it any more. A node about to serve waits for the end
// of what it carried out for its peer, and flushes nothing that would make room.
func (e *Engine) mayRoute(m mode) bool {
	o := e.window.stalled.first
	return o != nil && (!e.owed(o) || e.room(m))
}

// room reports whether one more change may begin. Who serves by way of this disk
// sees to it itself: what waited here would be our debt.
func (e *Engine) room(m mode) bool {
	switch m {
	case modeReplicate, modeRemote:
		return e.backlog.room() && e.window.room(e)
	case modeAlone:
		return e.remote.hosts || e.backlog.room()
	}
	return true
}

// route puts a change into the run, or where it waits, or ends it.
func (e *Engine) route(o *op, m mode) {
	switch {
	case !e.owed(o):
		e.giveUp(o)
	case m == modeFrozen:
		e.frozen.push(o)
	case m == modeDead:
		e.dropIntents(o)
		e.answer(o, block.IOError)
	default:
		e.backlog.begin(o)
		if o.lone = m == modeAlone; o.lone {
			if !mutated("a write alone is dirty") && !(o.follows && mutated("a hosted write is dirty")) {
				e.marks.dirtied(e, o)
			}
		} else {
			e.window.add(e, o)
		}
		e.run = append(e.run, o)
	}
}

// sendRun puts ops with consecutive sequences on the data link as batch
// frames: a header before the records as they were received.
func (e *Engine) sendRun(run []*op) {
	l := e.session.data
	for len(run) > 0 && !l.closed {
		n, length, sum := 0, 0, uint32(0)
		for n < len(run) && (n == 0 || length+run[n].size() <= maxRun) {
			length += run[n].size()
			sum = crc32.Update(sum, block.Castagnoli, run[n].record)
			sum = crc32.Update(sum, block.Castagnoli, run[n].payload)
			n++
		}
		f := Frame{Type: frameBatch, Session: e.session.id, Sequence: run[0].seq, Count: uint32(n)}
		putFrameHeader(l.room(frameHeader), &f, length, sum)
		for _, o := range run[:n] {
			l.append(o.record, block.Hold{})
			if len(o.payload) > 0 {
				l.append(o.payload, block.Hold{})
			}
		}
		e.counters.SentBytes += int64(length)
		run = run[n:]
	}
}

// writeLocal gives a change to the local disk.
func (e *Engine) writeLocal(o *op) {
	o.open = true
	e.assign(o, block.Task{
		Op: o.kind, Offset: o.offset, Length: o.length, Data: o.data,
		Punch: e.cfg.Punch && o.flags&block.NoHole == 0,
	})
}

// finished: the local disk has answered.
func (o *op) finished(t *block.Task) {
	e := o.engine
	o.local = false
	switch o.kind {
	case block.Read:
		e.readDone(o, t)
	case block.Cache:
		e.answer(o, block.OK)
	case block.BlockStatus:
		e.allocated(o, t)
	default:
		if t.Err != nil {
			e.localFailed("write", t.Err)
		}
		e.advance(o)
	}
}

// advance goes on with a change that both disks have answered (rule 2).
func (e *Engine) advance(o *op) {
	if o.open && o.peer && mutated("an acknowledgement waits for the peer") {
		o.peer = false
		e.window.count--
	}
	if !o.open || o.peer || o.local {
		return
	}
	o.open = false
	e.window.remove(o)
	e.backlog.taken(o)
	switch {
	case e.local == diskFailed:
		e.marks.dirtied(e, o) // for the peer to know what this disk lacks
		e.hold(o)
	case o.lone:
		e.hold(o)
	default:
		e.marks.taken(e, o)
		e.taken(o)
	}
}

// taken: every disk that must has the change; durability may still be wanted.
func (e *Engine) taken(o *op) {
	e.dropIntents(o)
	if o.flags&block.FUA != 0 && !mutated("FUA is a flush") {
		e.unlock(&o.lock)
		e.rounds.join(e, o)
		return
	}
	e.answer(o, block.OK)
}
