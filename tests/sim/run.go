// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"time"

	"github.com/twinbd/twinbd/failover"
	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/mirror"
)

// run is a whole schedule: the service is made, then round by round things go
// wrong, and are healed, and everything is looked at.
func (w *world) run() {
	for _, n := range w.nodes {
		n.boot()
	}
	w.commission()
	for _, l := range w.volumes {
		for _, c := range l.clients {
			c.act()
		}
	}
	for i, round := range w.plan.rounds {
		w.say("== round %d", i)
		w.pass(between(w.moods, 50*time.Millisecond, 500*time.Millisecond))
		w.plan.begin(round)
		if !w.until(5*time.Minute, w.plan.over) {
			w.fail("the faults do not end")
		}
		w.heal()
		for _, l := range w.volumes {
			if len(l.rotten) > 0 || w.moods.IntN(6) == 0 {
				w.verify(l)
			}
		}
		w.inspect()
	}
}

// commission makes the first primary, as an operator does who has installed it.
func (w *world) commission() {
	ok := w.until(30*time.Second, func() bool {
		p := w.nodes[alpha].process
		return p.machine.Serving() || p.machine.ReachesWitness() && p.command(failover.CommandPrim) == nil
	})
	if !ok || !w.until(30*time.Second, w.well) {
		w.fail("the service does not begin: %s", w.state())
	}
}

// healLimit is more than any sequence of waits adds up to.
const healLimit = 60 * time.Second

// heal: nothing is wrong any more but disks that failed, which somebody replaces.
// Then the service is back without anybody's doing.
func (w *world) heal() {
	w.say("== heal")
	for _, n := range w.nodes {
		for _, s := range n.stores {
			if s.hung != [2]bool{} || len(s.faults) > 0 {
				s.heal()
			}
		}
		if n.process == nil {
			n.boot()
		}
		n.process.run(func() { _ = n.process.command(failover.CommandStart) }) // what was stopped on purpose
	}
	w.pass(200 * time.Millisecond) // what has failed is known by then
	for range 10 {
		if w.until(healLimit, func() bool { return w.well() || w.failedDisk() != nil }) {
			n := w.failedDisk()
			if n == nil {
				return
			}
			w.pass(3 * time.Second) // until somebody comes
			w.say("somebody replaces the disk of %s", n.name)
			n.crash(w.moods.IntN(2) == 0)
			w.pass(between(w.moods, 10*time.Millisecond, 3*time.Second))
			n.boot()
			continue
		}
		break
	}
	w.fail("stuck: the service is not back: %s", w.state())
}

// well: one serves, the other follows, everything is mirrored.
func (w *world) well() bool {
	states := [2]failover.State{}
	for i, n := range w.nodes {
		p := n.process
		if p == nil || p.frozen {
			return false
		}
		states[i] = p.machine.State()
		for _, v := range p.volumes {
			st := &v.status
			if st.Session != mirror.Mirroring || st.DiskFailed != "" || v.hanging {
				return false
			}
		}
	}
	return states == [2]failover.State{failover.StatePrim, failover.StateSecond} || states == [2]failover.State{failover.StateSecond, failover.StatePrim}
}

// failedDisk is a node with a disk that failed.
func (w *world) failedDisk() *node {
	for _, n := range w.nodes {
		if n.process != nil {
			for _, v := range n.process.volumes {
				if v.status.DiskFailed != "" {
					return n
				}
			}
		}
	}
	return nil
}

// inspect: when the clients rest and nothing is under way, both disks hold the
// same, and what clients were told; and the engines hold nothing.
func (w *world) inspect() {
	w.say("== inspect")
	w.rest()
	w.compare()
	for _, n := range w.nodes {
		for _, v := range n.process.volumes {
			if what, held := v.engine.Held(); held != 0 {
				w.fail("bounded: %s is quiet, and holds %d %s", v.store, held, what)
			}
			if st := v.engine.Status(); st.DirtyBlocks != 0 || st.Intents > v.ledger.intents {
				w.fail("bounded: %s mirrors, and has %d dirty blocks and %d intents", v.store, st.DirtyBlocks, st.Intents)
			}
		}
	}
	w.calm = false
}

// rest lets the clients rest, and all end that is under way.
func (w *world) rest() {
	w.calm = true
	if !w.until(30*time.Second, w.quiet) {
		w.fail("stuck: requests do not end: %s", w.state())
	}
}

// quiet reports whether nothing is under way.
func (w *world) quiet() bool {
	if !w.well() {
		return false
	}
	for _, n := range w.nodes {
		for _, v := range n.process.volumes {
			if len(v.tasks[block.Data]) > 0 || len(v.tasks[block.Metadata]) > 0 || v.engine.Status().InFlight > 0 {
				return false
			}
			for _, s := range v.sessions {
				if s.open > 0 {
					return false
				}
			}
			if e := v.end; e == nil || e.flows[data].under > 0 || e.flows[bulk].under > 0 {
				return false
			}
		}
	}
	return true
}

// compare: both disks hold the same, and what clients were told.
func (w *world) compare() {
	for _, l := range w.volumes {
		a, b := w.nodes[alpha].stores[l.id].data, w.nodes[beta].stores[l.id].data
		for s, c := range a.current {
			if l.rotten[s/perBlock] {
				continue
			}
			if d := b.current[s]; c != d {
				w.fail("identical: volume %d, sector %d (block %d): alpha %d, beta %d", l.id, s, s/perBlock, c, d)
			}
			l.observe(s, c, "disks after healing")
		}
	}
}

// verify lets blocks of the secondary rot, and has them found and repaired.
func (w *world) verify(l *ledger) {
	w.rest()
	p, o := w.nodes[alpha].process, w.nodes[beta]
	if p.machine.State() != failover.StatePrim {
		p, o = w.nodes[beta].process, w.nodes[alpha]
	}
	v := p.volumes[l.id]
	lies := len(l.rotten) > 0
	for range 1 + w.moods.IntN(4) {
		s := w.moods.IntN(l.sectors)
		if d := o.stores[l.id].data; !l.rotten[s/perBlock] && d.settled(s) {
			d.current[s] |= garbage
			d.durable[s] |= garbage
			l.rotten[s/perBlock] = true
		}
	}
	w.calm = w.moods.IntN(2) == 0
	rotten := len(l.rotten)
	w.say("== verify: %d blocks of %s rot", rotten, o.stores[l.id])
	w.stats.Verifies++
	w.must(v.engine.Verify(p.node.clock(), true))
	v.dispatch()
	if !w.until(30*time.Second, func() bool { return v.engine.Status().Verify.Ended != 0 }) {
		w.fail("stuck: verify does not end")
	}
	found := int(v.engine.Status().Verify.Different)
	if found > rotten || w.calm && found != rotten && !lies {
		w.fail("verify found %d blocks, %d were rotten", found, rotten)
	}
	w.calm = false
	w.pass(200 * time.Millisecond) // the session begins anew for the copying
	w.heal()
	l.sound(v.store.data)
}

// state is the nodes in a few words.
func (w *world) state() string {
	text := "record " + w.seen.String()
	for _, n := range w.nodes {
		p := n.process
		if p == nil {
			text += "; " + n.name + " is down"
			continue
		}
		text += "; " + n.name + " is " + string(p.machine.State()) + " (" + p.machine.Reason() + ")"
		for _, v := range p.volumes {
			st := v.engine.Status()
			text += " " + v.ledger.name + ": " + st.Session.String() + " (" + st.Reason + ") " + st.State.String() + " " + st.Right.String()
			if st.Primary {
				text += " primary"
			}
			if st.DiskFailed != "" {
				text += " failed"
			}
		}
	}
	return text
}

// sessionChanged hears of every session, for faults that wait for one.
func (w *world) sessionChanged(v *volume) {
	if v.status.Session == mirror.Resyncing {
		w.stats.Resyncs++
	}
	if v.status.Session == mirror.Disconnected {
		w.disarm()
	}
	w.plan.met(v)
}
