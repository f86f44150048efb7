// SPDX-License-Identifier: Apache-2.0

package failover

// What must hold in every state.

// truth is what clients were told.
type truth struct {
	acked    writes    // acknowledged
	flushed  writes    // and then an acknowledged flush
	seen     writes    // read by somebody
	dropped  [2]writes // not durable on a node when its power went
	given    writes    // acknowledged, not flushed, and lost to a power cut as the rules have it
	forced   bool      // the operator gave writes up
	stopped  bool      // the operator stopped both
	restored bool      // a node from an old copy
	parting  uint64    // the process whose peer was last stopped, in order: it has to serve on
	led      bool      // it did so before; else it needs the witness for a right of its own
}

// serves reports whether a node may answer clients at this moment, as its data
// path sees it: that looks at the end of the lease itself.
func (w *world) serves(i int) bool {
	n := &w.nodes[i]
	e := &n.engine
	if !w.acts(i) || !e.primary {
		return false
	}
	switch {
	case e.dead, e.failed && (!e.named || e.view != remote || !w.together()):
		return false
	case e.right == RightAlone:
		return true
	}
	return e.right == RightPair && w.local(i) < e.until
}

// visible is what a client can read at a node that serves.
func (w *world) visible(i int) writes {
	e := &w.nodes[i].engine
	if e.failed {
		return w.nodes[1-i].engine.applied &^ (e.flight | e.waiting)
	}
	return e.applied &^ (e.flight | e.waiting)
}

func (w *world) check() {
	if w.broken != "" {
		return
	}
	t := &w.truth
	if w.serves(alpha) && w.serves(beta) {
		w.violate("DUAL: both nodes serve")
	}
	for i := range w.nodes {
		if w.serves(i) {
			have := w.visible(i)
			t.given = t.given&^have | (t.acked|t.seen)&^have&w.mayLack(i)
			if lost := (t.flushed | (t.acked|t.seen)&^t.given) &^ have; lost != 0 && !t.forced {
				w.violate("LOST: %s serves without %03b (it has %03b; acknowledged %03b, flushed %03b, seen %03b)", places[i], lost, have, t.acked, t.flushed, t.seen)
			}
			t.seen |= have
		}
		w.checkNode(i)
	}
	if r := &w.seat.Record; r.Mode == Pair && r.Holder != "" && w.arbiter == ByWitness && !t.restored {
		other := 1 - place(r.Holder)
		if in := w.nodes[other].durable.InStep; in != 0 && in < r.Epoch { // 0: it has served since, by a promise
			w.violate("STUCK: the record is %v, and if its holder dies now %s is not in step in it", r.View(), places[other])
		}
	}
}

// mayLack is what a node that serves may lack though it was acknowledged: what
// it lost itself with its power before a flush (F17 of the protocol's review),
// unless a peer that kept running in step has it, stopped since or not, and both have heard each other
// for long enough to find that out, or would have, had it waited (rule 22). No
// flushed write is ever excused, nor what a node lacks for any other reason than
// that its own power went: a takeover by a node that kept running loses nothing.
// Nor is a node excused that begins before its peer was silent for a timeout. A holder
// by the record that hears its peer and cannot compare, for their data path stands still,
// waits for as long as the rules have it wait, and then it is; one by a promise is not.
func (w *world) mayLack(i int) writes {
	p := &w.nodes[1-i].engine
	lacks := w.truth.dropped[i]
	waits := w.linkedFor >= max(foundOut, w.lag+1) || w.now-w.nodes[i].since < foundOut*beatEvery
	if w.linked() && waits && !w.nodes[i].engine.waited && !w.stall && p.kept && p.state == consistent && !p.failed {
		lacks &^= p.applied
	}
	return lacks
}

// foundOut is within how many heartbeats two nodes know what each other has.
const foundOut = 3

// checkNode holds one node to its record.
func (w *world) checkNode(i int) {
	n := &w.nodes[i]
	if !n.up {
		return
	}
	d := &n.m.durable
	switch {
	case *d != n.durable:
		w.violate("STATE: %s goes by what is not durable: %+v, stored %+v", places[i], *d, n.durable)
	case w.serves(i) && n.engine.right == RightAlone && !n.m.risk && w.arbiter == ByWitness &&
		!(d.View.Holder == places[i] && d.View.Epoch >= n.m.term) && d.Held < n.m.term:
		w.violate("RIGHT: %s is alone in %d, and neither the record (%v) nor a promise (%d) says so", places[i], n.m.term, d.View, d.Held)
	case n.m.won && d.Promise != 0:
		w.violate("RIGHT: %s is bound by %d, and is about to serve", places[i], d.Promise)
	case n.engine.primary && n.engine.state == inconsistent:
		w.violate("LOST: %s serves an inconsistent disk", places[i])
	case !n.engine.primary && (n.engine.right != RightNone || n.engine.taken != RightNone):
		w.violate("RIGHT: %s does not serve, and its data path has a right", places[i])
	}
}
