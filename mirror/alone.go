// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/internal/block"
)

// Going on alone. Three things must be durable before the first
// acknowledgement that the peer does not have (rules 2, 9, 16), and hold is
// the only place where such acknowledgements wait:
//
//  1. the right: the arbiter has granted it, for the whole service;
//  2. the fence: a generation of our own, with the old one as ancestor;
//  3. the cover: the blocks are dirty, inside durable intents.
type aloneState struct {
	asked   bool // the arbiter was asked and has not answered
	parting bool // the new generation is being written
}

// hold keeps an op that both disks do not have until it may be acknowledged.
func (e *Engine) hold(o *op) {
	e.held.push(o)
	e.acknowledgeHeld()
}

// acknowledgeHeld answers what may be answered now.
func (e *Engine) acknowledgeHeld() {
	held := e.held.take()
	for o := held.pop(); o != nil; o = held.pop() {
		if e.held.length > 0 || !e.mayAcknowledge(o) {
			e.held.push(o)
			continue
		}
		e.release(o)
	}
}

// mayAcknowledge decides for an op that was carried out, but not, as far as
// this session with the peer knows, on both disks.
func (e *Engine) mayAcknowledge(o *op) bool {
	switch m := e.mode(); {
	case m == modeDead:
		return true
	case m == modeRemote:
		return true // the peer acknowledged it, and owns the history now
	case e.session.state == Mirroring:
		return true // the resync has copied it
	case m == modeFrozen || e.right != RightAlone:
		return false
	case o.kind == block.Flush && e.dirty.Count() == 0:
		return true // the peer lacks nothing
	}
	if !e.parted() {
		e.part()
		return false
	}
	return true
}

// release acknowledges a held op.
func (e *Engine) release(o *op) {
	dead := e.mode() == modeDead
	switch {
	case dead:
		if o.kind != block.Flush && o.lock.held {
			e.dropIntents(o)
		}
		e.answer(o, block.IOError)
	case o.kind == block.Flush || !o.lock.held: // a flush, or a FUA write past its write
		if e.session.state == Mirroring {
			o.lone = false
			e.rounds.join(e, o) // not yet durable at the peer
			return
		}
		e.answer(o, block.OK)
	default:
		o.lone = false
		e.taken(o)
	}
}

// parted reports whether a generation of our own, that the peer does not have,
// is durable.
func (e *Engine) parted() bool { return !e.header.Base.IsZero() && !e.alone.parting }

// part begins a new generation (rule 9).
func (e *Engine) part() {
	if e.alone.parting {
		return
	}
	e.alone.parting = true
	old := e.header.Generation
	e.newGeneration()
	e.meta.wantHeader(func() {
		e.alone.parting = false
		e.observe("generation", old.String(), e.header.Generation.String(), "first write that "+e.cfg.Peer+" does not have")
		e.acknowledgeHeld()
	})
}

// newGeneration makes the header name a new history that begins with the
// current one. The caller has it written.
func (e *Engine) newGeneration() {
	next, err := bitmap.NewGeneration(e.cfg.Random)
	if err != nil {
		bug("%v", err)
	}
	e.header.Base = e.header.Generation
	e.header.Advance(next)
}

// seekAlone asks the arbiter for the right to go on without the peer, once the
// local disk is flushed: what both had acknowledged must survive this node's
// power cut before the peer stops being its equal.
func (e *Engine) seekAlone() {
	if !e.primary || e.right == RightAlone || e.alone.asked || e.local == diskFailed {
		return
	}
	e.alone.asked = true
	e.rounds.whenDone(e, func() {
		if e.local == diskGood && e.right != RightAlone && e.alone.asked {
			e.cfg.Arbiter.Ask(AskAlone)
		}
	})
}
