// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"maps"
	"strings"
)

// A transition of the machine is one thing that changes in it, or that it does:
// from where, and what. Several at a time are several transitions: each is made
// by a line of its own, and that they meet in one input is the world's doing. So
// is which input came last: after every one of them the same step looks for what
// is due.
//
// Where it is, is the case of the first switches: step, and whileIdle for who does
// not serve; role and right, by which keepRight and leave choose, for who does.
// What changes is a field that a case sets, an action, or an event with its
// reason, which names the rule that spoke. For the question under way, in whose
// outcome the inputs themselves have cases, it is also told on what it changed: an
// answer that grants, refuses or voids, a word of the operator's, a report of the
// shell's, or news, which is all the rest. So two cases that do anything differ in
// where they are taken, in what they change, or in the answer; a case that changes
// nothing is no transition.
type kindOf struct {
	where    post
	on       string
	what     string
	from, to string
}

// post is a case of the first switches.
type post struct {
	role  role
	right Right // of who does not idle
	idle  string
}

// standing is all of a machine that transitions are told by.
type standing struct {
	where                              post
	asks                               purpose
	going                              leaveWhy
	right                              Right
	record                             string
	won, bound, holds, offer           bool
	stopped, apart, remote, teaches    bool
	downing, demoting, handover, risky bool
	inStep, disowned                   uint64
	shown                              State
	application                        appState
}

// kinds are those that were met, each with the fewest events that led to it from
// a start.
type kinds struct {
	met     map[kindOf]uint8
	events  uint8             // that have led to where the world is, or may have
	reasons map[string]string // without names and numbers
}

func newKinds() *kinds { return &kinds{met: map[kindOf]uint8{}, reasons: map[string]string{}} }

// meet notes one.
func (k *kinds) meet(kind kindOf) {
	if fewest, known := k.met[kind]; !known || k.events < fewest {
		k.met[kind] = k.events
	}
}

// add takes those of another, and returns the new ones.
func (k *kinds) add(other *kinds) map[kindOf]uint8 {
	fresh := maps.Clone(other.met)
	maps.DeleteFunc(fresh, func(kind kindOf, _ uint8) bool { _, known := k.met[kind]; return known })
	for kind, events := range other.met {
		k.events = events
		k.meet(kind)
	}
	return fresh
}

// byEvents says how many kinds need so many events, and not fewer.
func (k *kinds) byEvents() []int {
	var counts []int
	for _, events := range k.met {
		counts = append(counts, make([]int, max(0, int(events)+1-len(counts)))...)
		counts[events]++
	}
	return counts
}

func (m *Machine) standing() standing {
	d, g := &m.durable, &m.going
	return standing{
		where: m.where(), asks: m.asks(), going: g.why, right: m.right, record: m.named(), won: m.won, bound: d.Promise != 0, holds: d.Held != 0, offer: m.offer,
		stopped: d.Wanted == WantStop, apart: !m.connected, remote: m.remote, teaches: m.teach != 0,
		downing: g.downing, demoting: g.demoting, handover: g.handover, risky: m.risk,
		inStep: d.InStep, disowned: d.Disowned, shown: m.State(), application: m.application.state,
	}
}

// asks is the purpose of the change that this node has asked for.
func (m *Machine) asks() purpose {
	if m.pending.on {
		return m.pending.why
	}
	return forNothing
}

func (m *Machine) where() post {
	d := &m.durable
	switch {
	case m.role != idle:
		return post{role: m.role, right: m.right}
	case m.won:
		return post{idle: "about to serve"}
	case m.pending.on:
		return post{idle: "asks"}
	case m.going.handover:
		return post{idle: "hands over"}
	case d.Wanted == WantStop:
		return post{idle: "stopped"}
	case d.Promise != 0:
		return post{idle: "bound"}
	case d.Held != 0:
		return post{idle: "holds a promise"}
	}
	return post{idle: m.named()}
}

// named is whom the record names, as far as the node knows.
func (m *Machine) named() string {
	d := &m.durable
	switch d.View.Holder {
	case m.set.Node:
		return [...]string{"named, pair", "named, alone"}[flagIf(d.View.Mode == Alone, 1)]
	case m.set.Peer:
		return [...]string{"peer named, pair", "peer named, alone"}[flagIf(d.View.Mode == Alone, 1)]
	}
	return "nobody named"
}

// note counts the transitions of an input.
func (w *world) note(i int, was standing, on string, actions []Action) {
	if w.kinds == nil {
		return
	}
	is := w.nodes[i].m.standing()
	met := func(what, from, to string) {
		w.kinds.meet(kindOf{where: was.where, what: what, from: from, to: to})
	}
	if was.asks != is.asks {
		w.kinds.meet(kindOf{was.where, on, "asks for", was.asks.String(), is.asks.String()})
	}
	for n := range actions {
		switch a := &actions[n]; a.Do {
		case DoStore, DoBeat, DoQuery: // what they say is below
		case DoEvent:
			switch a.Event.Kind {
			case "state", "right": // their reasons are older, and the changes are below
			default:
				met(a.Event.Kind, "", w.kinds.reason(i, a.Event.Reason))
			}
		case DoRight:
			met("tells its volumes", "", a.Right.String())
		default:
			met("does", "", a.Do.String())
		}
	}
	if was != is {
		was.changes(&is, met)
	}
}

// changes tells every field that differs.
func (s *standing) changes(is *standing, met func(what, from, to string)) {
	differs := func(what, from, to string) {
		if from != to {
			met(what, from, to)
		}
	}
	differs("role", s.where.role.String(), is.where.role.String())
	differs("right", s.right.String(), is.right.String())
	differs("leaves", leavings[s.going], leavings[is.going])
	differs("record", s.record, is.record)
	differs("shows", string(s.shown), string(is.shown))
	differs("application", applications[s.application], applications[is.application])
	for _, f := range [...]struct {
		what    string
		was, is bool
	}{
		{"about to serve", s.won, is.won}, {"bound", s.bound, is.bound}, {"holds a promise", s.holds, is.holds}, {"offers its promise", s.offer, is.offer},
		{"to be stopped", s.stopped, is.stopped}, {"kept apart", s.apart, is.apart}, {"served by the peer's disk", s.remote, is.remote},
		{"teaches", s.teaches, is.teaches}, {"application goes down", s.downing, is.downing}, {"volumes drain", s.demoting, is.demoting},
		{"peer to serve", s.handover, is.handover}, {"at risk", s.risky, is.risky},
	} {
		if f.was != f.is {
			met(f.what, yesNo[flagIf(f.was, 1)], yesNo[flagIf(f.is, 1)])
		}
	}
	switch {
	case is.inStep > s.inStep:
		met("in step", "", "learned")
	case is.inStep < s.inStep:
		met("in step", "", "no more")
	}
	if is.disowned > s.disowned {
		met("disowns a promise", "", "")
	}
}

var (
	yesNo        = [...]string{"no", "yes"}
	leavings     = [...]string{"no", "to switch", "to stop", "to quit", "expelled", "failed"}
	applications = [...]string{"down", "going up", "up", "failed", "going down", "killed"}
)

// reason is one without the nodes' names and numbers.
func (k *kinds) reason(i int, reason string) string {
	key := places[i][:1] + reason
	short, ok := k.reasons[key]
	if !ok {
		short = strings.NewReplacer(places[i], "this node", places[1-i], "the peer").Replace(reason)
		short = strings.Map(func(r rune) rune {
			if r >= '0' && r <= '9' {
				return -1
			}
			return r
		}, short)
		k.reasons[key] = short
	}
	return short
}

// given is the kind of an event.
func (e *event) given() string {
	switch {
	case e.failed:
		return e.kind.String() + " failed"
	case e.kind == evBeat, e.kind == evTick, e.kind == evSaw:
		return "news"
	case e.answer == nil:
		return e.kind.String()
	case e.answer.Granted:
		return "granted"
	case e.answer.Void:
		return "void"
	case e.answer.Reason != "":
		return "refused"
	}
	return "news"
}

func (p post) String() string {
	s := p.role.String()
	if p.idle != "" {
		s += ", " + p.idle
	}
	if p.right != RightNone {
		s += ", " + p.right.String()
	}
	return s
}

func (k kindOf) String() string {
	s := k.where.String()
	if k.on != "" {
		s += ", on " + k.on
	}
	s += ": " + k.what
	if k.from != "" {
		s += " " + k.from + " ->"
	}
	return strings.TrimSuffix(s+" "+k.to, " ")
}
