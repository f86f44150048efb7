// SPDX-License-Identifier: Apache-2.0

package failover

import "fmt"

// The model's shell: it carries actions out, in order, each before the next.

// did carries out what an input returned. With crash at 0 or above the node dies
// after so many actions.
func (w *world) did(i int, actions []Action, crash int) {
	n := &w.nodes[i]
	n.m.out = nil
	for k, a := range actions {
		if k == crash {
			break
		}
		w.act(i, a)
	}
	if crash >= 0 {
		w.say("%s crashes after %d of these", places[i], crash)
		w.crash(i, false)
	}
}

func (w *world) act(i int, a Action) {
	n := &w.nodes[i]
	back := func(k kind, failed bool) {
		w.later(event{kind: k, at: uint8(i), boot: n.boot, nonce: a.Nonce, failed: failed})
	}
	if w.trace != nil && a.Do != DoBeat && a.Do != DoQuery {
		w.say("    %s: %s", places[i], actionLine(a))
	}
	switch a.Do {
	case DoStore:
		w.store(i, a.State)
	case DoBeat:
		b := a.Beat
		if err := b.Check(w.local(i), 0, places[i], places[1-i]); err != nil && w.broken == "" {
			w.broken = err.Error() // the other would not listen
		}
		w.send(i, 1-i, event{kind: evBeat, beat: &b})
	case DoQuery:
		q := a.Query
		q.Cluster, q.From = "c", places[i]
		w.send(i, third, event{kind: evAsk, boot: n.boot, nonce: a.Nonce, query: &q})
	case DoChange:
		q := a.Request
		q.Cluster, q.From = "c", places[i]
		w.send(i, third, event{kind: evAsk, boot: n.boot, nonce: a.Nonce, request: &q})
	case DoPing:
		back(evPing, false)
	case DoFence:
		w.fence(i)
		back(evFence, w.nodes[1-i].up)
	case DoRight:
		n.engine.told(a.Right, a.Until, w.stall)
	case DoNames:
		n.engine.named = true
	case DoSource:
		n.engine.sources = !a.Off && !n.engine.primary
	case DoPromote:
		back(evPromoted, !w.promote(i, a))
	case DoDemote, DoExpel:
		w.demote(i)
		back(evDemoted, false)
	case DoUp:
		n.ups++
		back(evUp, n.fails)
	case DoDown, DoKill:
		back(evDown, false)
	case DoHide:
		n.shown = false
	case DoShow:
		n.shown = true
	case DoConnect:
		n.engine.connects = !a.Off
		if a.Off {
			w.lose(i)
		} else {
			n.since, w.linkedFor = w.now, 0
		}
	}
}

// store makes a state durable, and holds it to what a state may become.
func (w *world) store(i int, s NodeState) {
	n := &w.nodes[i]
	switch old := &n.durable; {
	case s.View.Epoch < old.View.Epoch, s.Known < old.Known, s.Disowned < old.Disowned:
		w.violate("EPOCH: %s lowers a number: %+v after %+v", places[i], s, *old)
	case s.View.Epoch == old.View.Epoch && s.View != old.View && old.View.Epoch != 0:
		w.violate("EPOCH: %s has two records of epoch %d: %v and %v", places[i], s.View.Epoch, old.View, s.View)
	default:
		if err := s.check(n.durable); err != nil {
			w.violate("STATE: %s stores what it could not read back: %v", places[i], err)
		}
	}
	n.durable = s
}

// fence switches the peer off, where there is power to switch.
func (w *world) fence(i int) {
	if w.nodes[1-i].up {
		w.crash(1-i, true)
	}
}

func actionLine(a Action) string {
	s := a.Do.String()
	switch a.Do {
	case DoStore:
		d := a.State
		s += fmt.Sprintf(" (%d %s %v) known %d, in step %d, promise %d, held %d, disowned %d, %v",
			d.View.Epoch, d.View.Holder, d.View.Mode, d.Known, d.InStep, d.Promise, d.Held, d.Disowned, d.Wanted)
	case DoRight, DoPromote:
		s += " " + a.Right.String()
	case DoChange:
		q := a.Request
		s += fmt.Sprintf(" %d -> %d %s %v", q.Replaces, q.epoch(), q.Holder, q.Mode)
	case DoEvent:
		s += fmt.Sprintf(" %s: %s -> %s, %s", a.Event.Kind, a.Event.Old, a.Event.New, a.Event.Reason)
	}
	return s
}
