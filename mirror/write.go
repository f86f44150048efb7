// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"hash/crc32"

	"github.com/twinbd/twinbd/internal/block"
)

// mode says where a request is carried out. It follows from the session, the
// right and the local disk; remode computes it anew after each change of these.
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
		return e.remote.mode(e)
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

// launch sends what was admitted in this turn to the peer, as one run, and
// then gives it to the local disk. The order of the run is the order on both.
func (e *Engine) launch() {
	if len(e.run) == 0 {
		return
	}
	switch m := e.mode(); m {
	case modeReplicate, modeRemote:
		e.replicate(m)
	case modeAlone:
		for _, o := range e.run {
			o.lone = true
			e.marks.dirtied(e, o)
			e.writeLocal(o)
		}
	case modeFrozen:
		for _, o := range e.run {
			e.frozen.push(o)
		}
	case modeDead:
		for _, o := range e.run {
			e.dropIntents(o)
			e.answer(o, block.IOError)
		}
	}
	e.run = e.run[:0]
}

// replicate sends the run to the peer and writes it here.
func (e *Engine) replicate(m mode) {
	batch := 0
	for i, o := range e.run {
		if !e.window.room(e) {
			for _, rest := range e.run[i:] {
				e.window.stalled.push(rest)
			}
			e.run = e.run[:i]
			break
		}
		e.window.add(e, o)
		batch++
	}
	e.sendRun(e.run[:batch])
	if m == modeRemote {
		return
	}
	for _, o := range e.run[:batch] {
		e.writeLocal(o)
	}
}

// sendRun puts ops with consecutive sequences on the data link as batch
// frames: a header before the records as they were received.
func (e *Engine) sendRun(run []*op) {
	l := e.session.data
	for len(run) > 0 && !l.closed {
		n, length, sum := 0, 0, uint32(0)
		for n < len(run) && (n == 0 || length+len(run[n].record) <= maxRun) {
			length += len(run[n].record)
			sum = crc32.Update(sum, block.Castagnoli, run[n].record)
			n++
		}
		f := Frame{Type: frameBatch, Session: e.session.id, Sequence: run[0].seq, Count: uint32(n)}
		putFrameHeader(l.room(frameHeader), &f, length, sum)
		for _, o := range run[:n] {
			l.append(o.record, block.Hold{})
		}
		e.counters.SentBytes += int64(length)
		run = run[n:]
	}
}

// writeLocal gives a change to the local disk.
func (e *Engine) writeLocal(o *op) {
	o.local = true
	o.task = block.Task{
		Op: o.kind, Offset: o.offset, Length: o.length, Data: o.data,
		Punch: e.cfg.Punch && o.flags&block.NoHole == 0, Engine: o,
	}
	e.do(&o.task)
}

// finished: the local disk has answered.
func (o *op) finished(t *block.Task) {
	e := o.engine
	o.local = false
	switch o.kind {
	case block.Read:
		e.readDone(o, t)
		return
	case block.Cache:
		e.answer(o, block.OK)
		return
	}
	if t.Err != nil {
		e.localFailed("write", t.Err)
	}
	e.advance(o)
}

// advance acknowledges a change that both disks have taken (rule 2).
func (e *Engine) advance(o *op) {
	switch {
	case o.local || o.peer:
	case o.lone || e.local == diskFailed:
		e.hold(o)
	default:
		e.marks.taken(e, o)
		e.taken(o)
	}
}

// taken: every disk that must has the change; durability may still be wanted.
func (e *Engine) taken(o *op) {
	e.dropIntents(o)
	if o.flags&block.FUA != 0 {
		e.unlock(&o.lock)
		e.rounds.join(e, o)
		return
	}
	e.answer(o, block.OK)
}

// window is what the peer has been sent and has not acknowledged.
type window struct {
	slots   []*op
	next    uint64 // sequence of the next op
	oldest  uint64 // no earlier one is unacknowledged
	count   int
	stalled opQueue // wait for room
}

const windowSlots = 8192

func (w *window) init() {
	w.slots = make([]*op, windowSlots)
	w.next, w.oldest = 1, 1
}

// room reports whether one more op may be sent: there is a slot, and a place
// in the log of what the peer has not flushed.
func (w *window) room(e *Engine) bool {
	return w.next-w.oldest < windowSlots && e.marks.room(e, w.count)
}

func (w *window) add(e *Engine, o *op) {
	o.seq, o.peer, o.started = w.next, true, e.now
	w.slots[w.next%windowSlots] = o
	w.next++
	w.count++
}

// acknowledge takes a run of outcomes from the peer.
func (w *window) acknowledge(e *Engine, r ackRange) error {
	if r.first < w.oldest || r.first+uint64(r.count) > w.next {
		return errSequence
	}
	if r.status != block.OK {
		return peerFailed(r.status)
	}
	for seq := r.first; seq < r.first+uint64(r.count); seq++ {
		o := w.slots[seq%windowSlots]
		if o == nil || o.seq != seq {
			return errSequence
		}
		w.remove(o)
		e.advance(o)
	}
	return nil
}

func (w *window) remove(o *op) {
	w.slots[o.seq%windowSlots] = nil
	o.seq, o.peer = 0, false
	w.count--
	for w.oldest < w.next && w.slots[w.oldest%windowSlots] == nil {
		w.oldest++
	}
}

// relaunch lets ops that waited for room try again.
func (w *window) relaunch(e *Engine) {
	for w.stalled.length > 0 && w.room(e) {
		e.run = append(e.run, w.stalled.pop())
		if len(e.run) >= windowSlots/2 {
			break
		}
	}
}

// oldestSent is when the peer was sent what it has not acknowledged for longest.
func (w *window) oldestSent() *op {
	if w.count == 0 {
		return nil
	}
	return w.slots[w.oldest%windowSlots]
}

// lose empties the window: what was in it is not known to be at the peer.
func (w *window) lose(e *Engine) {
	for seq := w.oldest; seq < w.next; seq++ {
		o := w.slots[seq%windowSlots]
		if o == nil {
			continue
		}
		w.remove(o)
		o.lone = true
		e.marks.dirtied(e, o)
		e.advance(o)
	}
}
