// SPDX-License-Identifier: Apache-2.0

package failover

import "time"

// Leaving in order (rules 17, 24): the application stops, the volumes drain and
// flush, the peer has durably learned the next epoch, and this node itself
// writes the peer into the record.

// leaveWhy says why a node stops serving.
type leaveWhy uint8

const (
	staying   leaveWhy = iota
	switching          // the peer is to serve
	stopping           // the operator stops the service here
	quitting           // the process ends
	expelled           // the record names the peer
	failed             // a volume could not become primary
)

// departure is how far a node has come that stops serving.
type departure struct {
	why      leaveWhy
	all      bool          // both nodes stop: nobody takes over
	handover bool          // the peer is to serve
	downing  bool          // the application is being taken down, or is, and the peer is waited for
	demoting bool          // the volumes drain
	down     time.Duration // when the application was down; 0: it is not
}

// mayHandOver: the peer has everything, is there, and wants to serve.
func (m *Machine) mayHandOver() bool {
	b := &m.peer.beat
	return m.data.Mirrored && m.audible() && b.Whole && b.Mirrored && b.Wanted == WantStart && !b.Serving && !m.remote
}

// leave begins to stop serving when that can be done: a handover needs a pair,
// and a peer that has learned the next epoch.
func (m *Machine) leave() {
	g := &m.going
	if g.why == staying || m.pending.on {
		return
	}
	g.handover = !g.all && m.mayHandOver()
	if g.handover && !m.cutOff() && !m.taught() {
		return
	}
	if g.why == switching && !g.handover {
		m.event("switch", "", "", "the switch is called off: "+m.set.Peer+" is not up to date any more")
		m.going = departure{}
		return
	}
	m.role = leaving
	g.downing = true
	m.application.state = appGoingDown
	m.do(Action{Do: DoDown, Epoch: m.term})
}

// cutOff: there is a witness, and it is away.
func (m *Machine) cutOff() bool { return m.set.Arbiter == ByWitness && !m.reachesWitness() }

// taught teaches the peer the epoch of the handover, and reports whether it has
// learned it, with the record at pair.
func (m *Machine) taught() bool {
	if !m.paired() {
		return false // keepRight sees to it
	}
	if m.teach <= m.durable.View.Epoch {
		m.teach = m.next()
		m.store(func(d *NodeState) { d.Known = m.teach })
	}
	return m.peer.beat.InStep == m.teach
}

func (m *Machine) whileLeaving() {
	g := &m.going
	switch {
	case g.why == expelled || g.why == failed || g.demoting:
	case g.downing && (g.down == 0 || m.rejoins()):
		m.keepRight() // the application writes until it is down, and a pair hands over
	case g.downing:
		g.downing, g.demoting = false, true
		m.do(Action{Do: DoDemote})
	}
	if !g.downing && !g.demoting {
		m.becomeIdle()
	}
}

// rejoins: the peer, which was to serve, has lost its session and is there: it has
// everything again in a moment. Who stops without it leaves nobody to serve.
func (m *Machine) rejoins() bool {
	b := &m.peer.beat
	return m.going.handover && !m.data.Mirrored && m.audible() && b.Wanted == WantStart && !m.remote &&
		m.now-m.going.down < m.set.patience()
}

// Down: the application is down, also when some step of it failed.
func (m *Machine) Down(now time.Duration, err error) []Action {
	m.begin(now)
	g := &m.going
	m.application.state = appDown
	if err != nil {
		m.problem = "stop the application: " + err.Error()
	}
	if g.downing && g.why != expelled {
		g.down = m.now
	} else {
		g.downing = false
	}
	return m.end()
}

// Demoted: nothing of clients is under way, and both disks are flushed.
func (m *Machine) Demoted(now time.Duration) []Action {
	m.begin(now)
	m.going.demoting = false
	m.right, m.told, m.lease = RightNone, toldRight{}, 0
	return m.end()
}

// becomeIdle ends serving. What a handover needs yet, handOver does.
func (m *Machine) becomeIdle() {
	g := m.going
	m.role, m.term, m.remote, m.risk = idle, 0, false, false
	if !g.handover && g.why != quitting {
		m.going = departure{}
	}
	if g.handover && m.teach > m.durable.View.Epoch {
		m.store(func(d *NodeState) { d.InStep = m.teach })
	}
}

// handOver writes the peer in, repeating until that is answered (rule 17);
// without a witness by a promise (rule 19). When the peer has gone meanwhile,
// this node takes the service up again.
func (m *Machine) handOver() {
	switch {
	case m.durable.View.Holder == m.set.Peer:
		m.handedAway()
	case !m.audible() || !m.data.Mirrored:
		m.handedAway() // and takes it up again
	case m.cutOff():
		m.dropHeld() // else the peer, bound by it, could not accept
		m.promise(true, "handed over while the witness is away")
		m.handedAway()
	case m.set.Arbiter == ByWitness && !m.fresh():
	case m.durable.View.Mode == Pair && m.teach > m.durable.View.Epoch && m.peer.beat.InStep == m.teach:
		m.seek(forHandover)
	default: // the witness is back, and the peer was taught nothing that the record has not reached
		m.seek(forGive)
	}
}

func (m *Machine) handedAway() {
	m.teach = 0
	if m.going.why == quitting {
		m.going.handover = false
		return
	}
	m.going = departure{}
}
