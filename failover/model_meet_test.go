// SPDX-License-Identifier: Apache-2.0

package failover

// Two engines meet. What they conclude is mirror's decide.go, with a history of
// numbers instead of names.

type verdict struct {
	do     meeting
	source int
}

type meeting uint8

const (
	meetMirror meeting = iota
	meetResync
	meetHost
	meetWait
	meetSplit
)

func (s *session) decide() verdict {
	a, b := &s.hellos[alpha], &s.hellos[beta]
	switch {
	case a.primary && b.primary:
		return verdict{do: meetSplit}
	case a.failed && b.failed:
		return verdict{do: meetWait}
	case a.failed || b.failed:
		bad, good := alpha, beta
		if b.failed {
			bad, good = beta, alpha
		}
		x, y := &s.hellos[bad], &s.hellos[good]
		if x.primary && y.state == consistent && (y.gen == x.gen || y.ancestors&(1<<x.gen) != 0) {
			return verdict{meetHost, good}
		}
		return verdict{do: meetWait}
	case a.state != consistent && b.state != consistent:
		return verdict{do: meetWait}
	case b.state != consistent:
		return s.onto(alpha)
	case a.state != consistent:
		return s.onto(beta)
	case a.gen == b.gen:
		return s.equals()
	case a.ancestors&(1<<b.gen) != 0 && b.ancestors&(1<<a.gen) == 0:
		return s.onto(alpha)
	case b.ancestors&(1<<a.gen) != 0 && a.ancestors&(1<<b.gen) == 0:
		return s.onto(beta)
	}
	return verdict{do: meetSplit}
}

func (s *session) onto(source int) verdict {
	if s.hellos[1-source].primary {
		return verdict{do: meetSplit}
	}
	return verdict{meetResync, source}
}

// equals is rule 22's order.
func (s *session) equals() verdict {
	a, b := &s.hellos[alpha], &s.hellos[beta]
	if !a.marks && !b.marks {
		return verdict{do: meetMirror}
	}
	for _, is := range [...]func(h, other *hello) bool{
		func(h, _ *hello) bool { return h.primary },
		func(h, _ *hello) bool { return h.kept },
		func(h, other *hello) bool {
			return h.number < other.number && !other.holder || h.number >= other.number && h.holder
		},
		func(h, _ *hello) bool { return h.last_ },
	} {
		switch {
		case is(a, b) && !is(b, a):
			return verdict{meetResync, alpha}
		case is(b, a) && !is(a, b):
			return verdict{meetResync, beta}
		}
	}
	return verdict{meetResync, alpha}
}

// conclude acts on what both said, when it still holds here.
func (w *world) conclude(i int) {
	e := &w.nodes[i].engine
	h := &w.session.hellos[i]
	if h.primary != e.primary || h.gen != e.gen || h.state != e.state || h.failed != e.failed {
		w.lose(i) // it changed while meeting
		return
	}
	switch v := w.session.decide(); v.do {
	case meetMirror:
		e.view, e.winner, e.base, e.peerHas, e.equal = mirroring, Same, 0, e.flight, w.nodes[1-i].boot
		e.last = e.last && !w.session.hellos[1-i].primary
	case meetResync:
		e.view, e.winner = source, Mine
		if v.source != i {
			e.view, e.winner = target, Theirs
		}
		e.flushed = false
	case meetHost:
		e.view, e.winner = mirroring, Theirs
		if e.failed && e.equal != w.nodes[1-i].boot { // it may have lost what it had not flushed
			e.dead = true
			w.over(i)
			return
		}
		e.asked = e.asked || e.failed
		if v.source == i {
			e.view, e.winner = host, Mine
		}
	case meetSplit:
		e.winner = Split
		if !w.session.hellos[alpha].primary && !w.session.hellos[beta].primary && !w.truth.forced {
			w.violate("SPLIT: both disks have writes that the other lacks: generations %d and %d", w.session.hellos[alpha].gen, w.session.hellos[beta].gen)
		}
		w.over(i)
	default:
		e.winner = NotMet
		w.over(i)
	}
}

// over ends a session for which there is nothing to do; the next comes later.
func (w *world) over(i int) {
	winner := w.nodes[i].engine.winner
	w.lose(i)
	w.nodes[i].engine.winner, w.nodes[i].engine.retry = winner, w.now+beatEvery
}

// promote makes an engine serve, or says that it cannot.
func (w *world) promote(i int, a Action) bool {
	e, p := &w.nodes[i].engine, &w.nodes[1-i].engine
	switch {
	case e.failed, e.state == inconsistent && a.Force == "",
		e.view == target, e.view == taking, e.view != parted && w.together() && p.primary:
		return false
	}
	if e.view != mirroring && e.view != source && e.view != copying {
		w.lose(i)
	}
	switch {
	case e.state == blank:
		w.generations++
		e.gen, e.state = w.generations, consistent
	case a.Force != "":
		w.part(e)
		e.base, e.state, w.truth.forced = 0, consistent, true
	}
	e.primary, e.last, e.flushed, e.named, e.sources = true, true, false, false, false
	m := &w.nodes[i].m
	e.waited = m.because == "granted: "+forResume.String() && m.waitedLong() && !m.met()
	e.right, e.until, e.taken, e.passes = a.Right, a.Until, a.Right, false
	if w.together() {
		p.last = false
	}
	return true
}

// demote stops serving: what was not acknowledged fails, the disks are flushed.
func (w *world) demote(i int) {
	e := &w.nodes[i].engine
	if !e.primary {
		return
	}
	e.primary, e.right, e.until, e.taken, e.passes, e.named = false, RightNone, 0, RightNone, false, false
	e.waiting, e.flight, e.peerHas, e.asked, e.dead = 0, 0, 0, false, false
	if e.failed {
		w.lose(i)
		return
	}
	e.durable = e.applied
	if e.view == mirroring && w.together() && w.nodes[1-i].engine.view == mirroring && !w.nodes[1-i].engine.failed {
		p := &w.nodes[1-i].engine
		if p.applied == e.applied {
			p.durable, e.marks = p.applied, 0
		}
	}
}
