// SPDX-License-Identifier: Apache-2.0

package failover

import "fmt"

// healing is what is well again, when faults end.
type healing uint8

const (
	healAll     healing = iota
	healNodes           // the witness stays away
	healButBeta         // alpha and the witness; beta hears nobody, and only the witness hears it
	healButAlpha
	healings
)

// heal ends faults: lines are whole, everybody runs, what was late arrives. What
// the operator wanted stays, and disks that failed stay failed.
func (w *world) heal(h healing) {
	w.say("== heal")
	w.lines = [3][3]lineState{}
	if h >= healButBeta {
		deaf := int(healButAlpha - h)
		w.isolate(deaf)
		w.lines[deaf][third] = open
	}
	if w.arbiter == ByWitness && h != healNodes && w.run == 0 {
		w.startWitness()
	}
	if h == healNodes {
		w.run = 0
	}
	for i := range w.nodes {
		w.nodes[i].frozen = false
		w.unbuffer(i)
		if !w.nodes[i].up {
			w.start(i)
		}
	}
	for len(w.aside) > 0 {
		e := w.aside[0]
		w.aside = w.aside[1:]
		w.happen(e, -1)
	}
	w.stall = false
	w.queue, w.stalled = append(w.queue, w.stalled...), nil
	w.after()
}

// healsWithin is more than any sequence of waits in the machine adds up to.
const healsWithin = 60

// recovers heals a world and says what is not as it should be after a while.
func (w *world) recovers(h healing) string {
	w.heal(h)
	for right, k := 0, 0; k < healsWithin && right < 6; k++ {
		w.ticks(1)
		switch {
		case w.broken != "":
			return w.broken
		case k > 6 && w.unwell(h) == "":
			right++
		default:
			right = 0
		}
	}
	broken := w.unwell(h)
	for i := range w.nodes {
		w.say("%s: %+v %+v", places[i], w.nodes[i].m.data, w.nodes[i].engine)
	}
	return broken
}

// unwell says what is not as it should be after such a healing.
func (w *world) unwell(h healing) string {
	switch h {
	case healAll:
		return w.wrong(true)
	case healNodes:
		return w.wrong(false)
	}
	return w.missesTakeover(1 - int(healButAlpha-h))
}

// missesTakeover: the other does not hear anything, so that its lease is over;
// this node was in step, is bound by nothing, and yet nobody serves. What the
// other could have written, this node has: the record says pair.
func (w *world) missesTakeover(i int) string {
	n, r := &w.nodes[i], &w.seat.Record
	d := &n.durable
	if r.Mode == Pair && r.Holder == places[1-i] && d.InStep >= r.Epoch && d.Promise == 0 && d.Wanted == WantStart &&
		n.engine.state == consistent && !n.engine.failed && !w.serves(alpha) && !w.serves(beta) {
		return w.stuck("%s does not take over", places[i])
	}
	return ""
}

// wrong says what is not as the operator wants it, in a world without faults.
func (w *world) wrong(witness bool) string {
	a, b := &w.nodes[alpha], &w.nodes[beta]
	if (a.engine.failed && b.engine.failed) || w.lastCopyFailed() {
		return ""
	}
	states := [2]State{a.m.State(), b.m.State()}
	for i := range w.nodes {
		n, peer := &w.nodes[i], &w.nodes[1-i]
		switch {
		case n.boot != 0 && n.boot == w.truth.parting && !n.engine.failed && !peer.engine.failed && n.engine.right != RightAlone && (witness || w.truth.led && n.m.role == serving):
			return w.stuck("%s cannot go on, though the other stopped in order", places[i])
		case n.durable.Wanted == WantStop && states[i] != StateStop:
			return w.stuck("%s is to be stopped", places[i])
		case n.durable.Wanted == WantStop || n.engine.failed && (!n.engine.primary || peer.durable.Wanted == WantStop):
		case peer.durable.Wanted == WantStop || peer.engine.failed || n.engine.failed:
			if witness && !w.truth.stopped && !w.serves(i) && !w.serves(1-i) && !w.excusable(i) {
				return w.stuck("%s could serve", places[i])
			}
		case !w.serves(alpha) && !w.serves(beta):
			return w.stuck("nobody serves")
		case witness && !(states[0] == StatePrim && states[1] == StateSecond || states[1] == StatePrim && states[0] == StateSecond):
			return w.stuck("they are not a pair")
		}
	}
	return ""
}

// lastCopyFailed: the only whole copy was on a disk that failed, so that nobody
// can serve. It excuses a service that is not there, and nothing else: whoever
// serves without a write breaks check, and a disk only fails because a driver
// chose so.
func (w *world) lastCopyFailed() bool {
	for i := range w.nodes {
		e, p := &w.nodes[i].engine, &w.nodes[1-i].engine
		if e.failed && (p.state != consistent || p.gen != e.gen && p.ancestors&(1<<e.gen) == 0) {
			return true
		}
		if e.dead || e.failed && w.truth.missing(p.applied) {
			return true
		}
	}
	return false
}

func (t *truth) missing(have writes) bool { return (t.acked|t.seen)&^have != 0 }

// excusable: the other is stopped, and may have what this node lacks; the record
// does not let this node serve. The operator stopped the newest copy. It excuses
// only that nobody serves, which loses nothing, and only while a node is stopped;
// not after a stop without faults around it: see truth.parting.
func (w *world) excusable(i int) bool {
	n := &w.nodes[i]
	return w.seat.Record.Holder == places[1-i] && (w.seat.Record.Mode == Alone || n.durable.InStep < w.seat.Record.Epoch) ||
		!n.engine.kept || n.engine.state != consistent || n.durable.Promise != 0
}

func (w *world) stuck(format string, args ...any) string {
	s := "STUCK: " + fmt.Sprintf(format, args...)
	for i := range w.nodes {
		m := &w.nodes[i].m
		s += fmt.Sprintf("; %s is %s (%s)", places[i], m.State(), m.Reason())
	}
	return s + fmt.Sprintf("; the record is %v", w.seat.Record.View())
}
