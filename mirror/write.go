// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"hash/crc32"
	"time"

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

// launch sends what was admitted in this turn to the peer, as one run, and
// then gives it to the local disk. The order of the run is the order on both.
func (e *Engine) launch() {
	if len(e.run) == 0 {
		return
	}
	e.dropUnowed()
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

// dropUnowed takes out of the run what nobody waits for any more.
func (e *Engine) dropUnowed() {
	kept := e.run[:0]
	for _, o := range e.run {
		if e.owed(o) {
			kept = append(kept, o)
		} else {
			e.giveUp(o)
		}
	}
	e.run = kept
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
	switch {
	case o.orphan:
		e.ops.orphans--
		e.ops.put(o)
	case o.kind == block.Read:
		e.readDone(o, t)
	case o.kind == block.Cache:
		e.answer(o, block.OK)
	case o.kind == block.BlockStatus:
		e.allocated(o, t)
	default:
		if t.Err != nil {
			e.localFailed("write", t.Err)
		}
		e.advance(o)
	}
}

// advance goes on with a change that both disks have answered (rule 2). A disk
// that failed is not waited for once the record names the peer.
func (e *Engine) advance(o *op) {
	if o.peer || o.local && !e.abandoned() {
		return
	}
	e.window.remove(o)
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

// abandoned reports whether the local disk is out of the game, whatever tasks
// it still holds.
func (e *Engine) abandoned() bool { return e.local == diskFailed && e.remote.named }

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

// window is what was sent to the peer and is not on both disks yet.
type window struct {
	slots   []*op
	next    uint64  // sequence of the next op
	oldest  uint64  // no earlier one is in the window
	count   int     // not acknowledged by the peer
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
	inFlight := int(w.next - w.oldest)
	return inFlight < windowSlots && e.marks.room(e, inFlight)
}

func (w *window) add(e *Engine, o *op) {
	o.seq, o.peer, o.started = w.next, true, e.now
	w.slots[w.next%windowSlots] = o
	w.next++
	w.count++
}

// acknowledge takes a run of outcomes from the peer.
func (w *window) acknowledge(e *Engine, r ackRange) error {
	if r.first < w.oldest || r.first > w.next || uint64(r.count) > w.next-r.first {
		return errSequence
	}
	if r.status != block.OK {
		return peerFailed(r.status)
	}
	for seq := r.first; seq < r.first+uint64(r.count); seq++ {
		o := w.slots[seq%windowSlots]
		if o == nil || o.seq != seq || !o.peer {
			return errSequence
		}
		o.peer = false
		w.count--
		e.advance(o)
	}
	return nil
}

// remove takes o out of the window, if it is in it.
func (w *window) remove(o *op) {
	if o.seq == 0 {
		return
	}
	w.slots[o.seq%windowSlots] = nil
	o.seq = 0
	for w.oldest < w.next && w.slots[w.oldest%windowSlots] == nil {
		w.oldest++
	}
}

// each calls f for every op in the window, in order; f may remove it.
func (w *window) each(f func(*op)) {
	for seq := w.oldest; seq < w.next; seq++ {
		if o := w.slots[seq%windowSlots]; o != nil {
			f(o)
		}
	}
}

// relaunch lets ops that waited for room try again.
func (w *window) relaunch(e *Engine) {
	for w.stalled.length > 0 && len(e.run) < windowSlots/2 && w.room(e) {
		e.run = append(e.run, w.stalled.pop())
	}
}

// waiting is since when the peer owes the acknowledgement that it owes longest.
func (w *window) waiting() (since time.Duration, ok bool) {
	if w.count == 0 {
		return 0, false
	}
	for seq := w.oldest; seq < w.next; seq++ {
		if o := w.slots[seq%windowSlots]; o != nil && o.peer {
			return o.started, true
		}
	}
	return 0, false
}

// lose: what is in the window is not known to be at the peer, and what the peer
// has acknowledged of it may be lost there, as what it had not flushed.
func (w *window) lose(e *Engine) {
	w.count = 0
	w.each(func(o *op) {
		o.peer, o.lone = false, true
		e.marks.dirtied(e, o)
		e.advance(o)
	})
}
