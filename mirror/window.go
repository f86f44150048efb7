// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"time"

	"github.com/twinbd/twinbd/internal/block"
)

// window is what was sent to the peer and is not on both disks yet.
type window struct {
	slots   []*op
	next    uint64        // sequence of the next op
	oldest  uint64        // no earlier one is in the window
	count   int           // not acknowledged by the peer
	stalled opQueue       // wait for room, here or in the backlog
	latency time.Duration // of the peer's acknowledgements, a sliding mean
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
	o.seq, o.open, o.peer, o.started = w.next, true, true, e.now
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
	e.moments.due = true
	for seq := r.first; seq < r.first+uint64(r.count); seq++ {
		o := w.slots[seq%windowSlots]
		if (o == nil || !o.peer) && mutated("an acknowledgement waits for the peer") {
			continue
		}
		if o == nil || o.seq != seq || !o.peer {
			return errSequence
		}
		o.peer = false
		w.count--
		w.latency += (e.now - o.started - w.latency) / 16
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
		if !mutated("what is in flight is dirty") {
			e.marks.dirtied(e, o)
		}
		e.advance(o)
	})
}
