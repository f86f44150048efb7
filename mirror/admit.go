// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/internal/block"
)

// pieceLimit is the length in bytes above which a change is carried out in
// pieces: at most the longest record, and so little that a piece takes no more
// than half of the intents.
func pieceLimit(l bitmap.Layout) int64 {
	return min(block.MaxLength, int64(max(l.IntentLimit()/2, 1))*l.RegionSize())
}

// admit begins one request.
func (e *Engine) admit(r *block.Request) {
	if !e.primary {
		e.complete(r, e.demoted)
		return
	}
	if s := e.check(r); s != block.OK {
		e.complete(r, s)
		return
	}
	o := e.newOp()
	o.req, o.kind, o.flags, o.offset, o.length = r, r.Op, r.Flags, r.Offset, r.Length
	o.data, o.record = r.Data, r.Record
	e.begin(o)
}

// check refuses what a front end should not have let through; the engine does
// not trust it with memory or disks.
func (e *Engine) check(r *block.Request) block.Status {
	switch {
	case r.Op == block.Flush:
		return block.OK
	case r.Offset < 0 || r.Length <= 0 || r.Offset > e.size || r.Length > e.size-r.Offset:
		return block.Invalid
	case (r.Op == block.Read || r.Op == block.Write) && int64(len(r.Data)) != r.Length:
		return block.Invalid
	}
	return block.OK
}

func (e *Engine) begin(o *op) {
	switch o.kind {
	case block.Flush:
		e.counters.Flushes++
		e.rounds.join(e, o)
	case block.BlockStatus:
		e.blockStatus(o)
	case block.Cache:
		e.cache(o)
	case block.Read:
		e.counters.Reads++
		e.counters.ReadBytes += o.length
		e.enter(o, true)
	case block.Write, block.Trim, block.WriteZeroes:
		e.counters.Writes++
		e.counters.WriteBytes += o.length
		if o.length > e.piece {
			e.cut(o)
		} else {
			e.enter(o, false)
		}
	default:
		e.answer(o, block.Invalid)
	}
}

// cut carries out a long trim or zero in pieces; the first error wins.
func (e *Engine) cut(parent *op) {
	parent.pieces = int((parent.length + e.piece - 1) / e.piece)
	for at := int64(0); at < parent.length; at += e.piece {
		o := e.newOp()
		o.parent, o.kind, o.flags, o.follows = parent, parent.kind, parent.flags, parent.follows
		o.offset, o.length = parent.offset+at, min(e.piece, parent.length-at)
		block.PutRecord(o.header[:], o.kind, o.flags, 0, o.offset, o.length)
		o.record = o.header[:]
		if o.kind == block.Write {
			o.data = parent.data[at : at+o.length]
			o.payload = o.data
		}
		e.enter(o, false)
	}
}

// enter takes the range lock (rule 7); the op goes on in locked.
func (e *Engine) enter(o *op, shared bool) {
	o.lock.start, o.lock.end, o.lock.shared = o.offset, o.offset+o.length, shared
	if e.locks.acquire(&o.lock) {
		o.locked()
	}
}

func (o *op) locked() {
	e := o.engine
	switch {
	case !e.owed(o):
		e.giveUp(o)
	case o.kind == block.Read:
		e.read(o)
	default:
		e.intend(o)
	}
}

// owed reports whether somebody still waits for o's answer: a client while this
// node serves, or the peer while this node hosts it in the same session.
func (e *Engine) owed(o *op) bool {
	switch {
	case o.parent != nil:
		return e.owed(o.parent)
	case o.follows:
		return e.remote.hosts && o.hosted.term == e.follower.term
	}
	return e.primary
}

// giveUp ends an op that will not be acknowledged here.
func (e *Engine) giveUp(o *op) {
	e.dropIntents(o)
	e.answer(o, e.demoted)
}

// giveUpUnowed ends the ops that wait, and for which nobody waits any more.
// Those that a disk or the peer has are ended when these answer.
func (e *Engine) giveUpUnowed() {
	for _, q := range [...]*opQueue{&e.frozen, &e.held, &e.window.stalled} {
		list := q.take()
		for o := list.pop(); o != nil; o = list.pop() {
			if e.owed(o) {
				q.push(o)
			} else {
				e.giveUp(o)
			}
		}
	}
}

// answer is the end of an op: its lock goes, its request completes. A node that
// serves no longer acknowledges nothing, be it done or not.
func (e *Engine) answer(o *op, s block.Status) {
	if s == block.OK && !e.owed(o) && !mutated("who serves no longer acknowledges nothing") {
		s = e.demoted
	}
	if o.lock.held {
		e.unlock(&o.lock)
	}
	switch {
	case o.parent != nil:
		p := o.parent
		if s != block.OK && p.status == block.OK {
			p.status = s
		}
		if p.pieces--; p.pieces == 0 {
			e.answer(p, p.status)
		}
	case o.follows:
		e.remote.answered(e, o, s)
	default:
		e.complete(o.req, s)
	}
	e.freeOp(o)
}
