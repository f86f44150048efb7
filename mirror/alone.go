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
	owes    int  // flushes that must end before more is acknowledged alone
}

// hold keeps an op that both disks do not have until it may be acknowledged.
func (e *Engine) hold(o *op) {
	if !e.owed(o) {
		e.giveUp(o)
		return
	}
	e.held.push(o)
	if e.held.length == 1 { // else whoever is before it waits already
		e.acknowledgeHeld()
	}
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
	case m == modeDead, m == modeRemote:
		return true // by EIO; by the peer, which owns the history now
	case m == modeFrozen:
		return false
	case e.session.state == Mirroring:
		return true // the resync has copied it
	case e.right != RightAlone && !mutated("a right before a lone acknowledgement"), e.alone.owes > 0:
		return false
	case e.session.state == Resyncing:
		return true // the peer is durably inconsistent, which is fence enough
	case !o.lock.held && e.dirty.Count() == 0:
		return true // a flush, and the peer lacks nothing
	}
	if !e.parted() && !mutated("a new generation before a lone acknowledgement") {
		e.part()
		return false
	}
	return true
}

// release goes on with a held op that may be acknowledged. An op without its
// lock is a flush, or a FUA write past its write.
func (e *Engine) release(o *op) {
	m, lone := e.mode(), o.lone
	o.lone = false
	switch {
	case m == modeDead:
		e.dropIntents(o)
		e.answer(o, block.IOError)
	case lone && m == modeRemote && o.lock.held: // a write that the host may not have
		e.run = append(e.run, o)
	case o.lock.held:
		e.taken(o)
	case lone && (m == modeRemote || e.session.state == Mirroring): // a flush that the peer did not take part in
		e.rounds.join(e, o)
	default:
		e.answer(o, block.OK)
	}
}

// parted reports whether a generation of our own, that the peer does not have,
// is durable.
func (e *Engine) parted() bool {
	return !e.header.Base.IsZero() && (!e.alone.parting || mutated("a new generation is durable first"))
}

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

// partAgain: the peer was an equal once more, while the right to be alone was still
// there. What both have acknowledged since is flushed before anything is
// acknowledged alone, as when that right is asked for.
func (e *Engine) partAgain() {
	if mutated("flushed before it parts again") {
		return
	}
	e.alone.owes++
	e.rounds.whenDone(e, func() {
		e.alone.owes--
		e.acknowledgeHeld()
	})
}

// seekAlone asks the arbiter for the right to go on without the peer, once the
// local disk is flushed: what both had acknowledged must survive this node's
// power cut before the peer stops being its equal.
func (e *Engine) seekAlone() {
	if !e.primary || e.right == RightAlone || e.alone.asked || e.local == diskFailed {
		return
	}
	e.alone.asked = true
	if mutated("flushed before it asks to be alone") {
		e.cfg.Arbiter.Ask(AskAlone)
		return
	}
	e.rounds.whenDone(e, func() {
		if e.local == diskGood && e.right != RightAlone && e.alone.asked {
			e.cfg.Arbiter.Ask(AskAlone)
		}
	})
}
