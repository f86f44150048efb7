// SPDX-License-Identifier: Apache-2.0

package failover

import "fmt"

// State is what a node shows for a service, in SafeKit's words.
type State string

// The states.
const (
	StateStop   State = "STOP"   // told to stop
	StateWait   State = "WAIT"   // waits for what the reason names, then goes on by itself
	StateAlone  State = "ALONE"  // serves; the peer does not follow
	StatePrim   State = "PRIM"   // serves; the peer follows
	StateSecond State = "SECOND" // follows
)

// Colour says whether a state may stay as it is.
type Colour string

// The colours.
const (
	Ready     Colour = "ready"
	Transient Colour = "transient"
	NotReady  Colour = "notready"
)

// State is what this node is.
func (m *Machine) State() State {
	switch {
	case m.role == promoting, m.role != idle && m.going.why == expelled:
		return StateWait
	case m.role != idle && m.data.Mirrored && m.right == RightPair:
		return StatePrim
	case m.role != idle:
		return StateAlone
	case m.durable.Wanted == WantStop || m.going.why == quitting:
		return StateStop
	case m.follower() && m.data.Mirrored:
		return StateSecond
	}
	return StateWait
}

// follower: the peer serves, and this node is to be its secondary.
func (m *Machine) follower() bool {
	return m.audible() && m.peer.beat.Serving && !m.won
}

// Colour says whether the state may stay.
func (m *Machine) Colour() Colour {
	allowed := m.allowed().right
	switch s := m.State(); {
	case s == StateStop:
		return NotReady
	case s == StateSecond && m.recorded():
		return Ready
	case s == StateSecond:
		return Transient
	case s == StateWait && (m.role != idle || m.won || m.pending.on || m.follower() && m.data.Winner != Split):
		return Transient
	case s == StateWait:
		return NotReady
	case m.role != serving, m.application.state == appGoingUp, allowed == RightNone && m.audible():
		return Transient
	case allowed == RightNone, m.application.state == appFailed, m.remote, m.data.Stuck:
		return NotReady
	case s == StatePrim && !m.recorded():
		return Transient
	}
	return Ready
}

// recorded: the record says that both nodes have every acknowledged write, so
// that the secondary may take over.
func (m *Machine) recorded() bool {
	d := &m.durable
	return d.View.Mode == Pair && (m.role != idle || d.InStep >= d.View.Epoch)
}

// UpToDate reports whether this node has every acknowledged write, as far as it
// knows.
func (m *Machine) UpToDate() bool {
	if !m.data.Whole {
		return false
	}
	return m.role != idle || m.data.Mirrored || m.durable.View.Holder == m.set.Node || m.recorded()
}

// Reason says in one sentence why the state is what it is.
func (m *Machine) Reason() string {
	switch m.State() {
	case StateStop:
		return m.whyStopped()
	case StateSecond:
		return m.whySecond()
	case StateWait:
		return m.whyWaiting()
	}
	return m.whyServing()
}

func (m *Machine) whyStopped() string {
	if m.going.why == quitting {
		return "twinbd is stopping on this node"
	}
	return fmt.Sprintf("the operator has stopped it here; `twinbd start %s` starts it", m.set.Service)
}

func (m *Machine) whySecond() string {
	peer := m.set.Peer
	if n := m.durable.Promise; n != 0 {
		return fmt.Sprintf("follows %s, and has promised not to serve (%d): the witness is not reached", peer, n)
	}
	if !m.recorded() {
		return fmt.Sprintf("follows %s: every acknowledged write is here, which is not on record yet", peer)
	}
	return fmt.Sprintf("follows %s: every acknowledged write is here", peer)
}

func (m *Machine) whyServing() string {
	peer, a := m.set.Peer, &m.application
	switch {
	case m.role == leaving:
		return "is stopping in order"
	case m.data.Stuck:
		return "clients wait: the data path stands still, a disk does not answer"
	case m.allowed().right == RightNone:
		return m.whyFrozen()
	case m.remote:
		return fmt.Sprintf("the disk here has failed: serves from the disk of %s", peer)
	case a.state == appFailed:
		return "serves, but the application does not run: " + a.why
	case m.State() == StatePrim && !m.recorded():
		return fmt.Sprintf("serves, and %s has every acknowledged write, which is not on record yet", peer)
	case m.State() == StatePrim:
		return fmt.Sprintf("serves, and %s has every acknowledged write", peer)
	case m.audible() && m.peer.beat.Wanted == WantStop:
		return fmt.Sprintf("serves alone: the service is stopped on %s", peer)
	case m.audible():
		return fmt.Sprintf("serves alone: %s is not up to date yet", peer)
	}
	return fmt.Sprintf("serves alone: %s is not heard", peer)
}

// whyFrozen: clients wait, nothing fails.
func (m *Machine) whyFrozen() string {
	switch {
	case m.data.Failed:
		return fmt.Sprintf("clients wait: the disk here has failed, and the record does not name %s yet", m.set.Peer)
	case m.set.Arbiter == ByWitness && !m.reachesWitness():
		return fmt.Sprintf("clients wait: neither %s nor the witness is reached, so this node cannot know whether %s has taken over", m.set.Peer, m.set.Peer)
	case m.set.Arbiter == ByPing:
		return fmt.Sprintf("clients wait: neither %s nor the router answers, so this node is cut off", m.set.Peer)
	case m.set.Arbiter == ByFence:
		return fmt.Sprintf("clients wait until %s is certainly off", m.set.Peer)
	}
	return "clients wait for the right to go on"
}

func (m *Machine) whyWaiting() string {
	d, b, peer, service := &m.durable, &m.peer.beat, m.set.Peer, m.set.Service
	switch {
	case m.role == promoting:
		return "is about to serve"
	case m.role == leaving:
		return "has lost the right to serve, and stops"
	case m.problem != "":
		return m.problem
	case m.won:
		return fmt.Sprintf("has the right to serve, and waits until %s cannot be serving any more", peer)
	case m.data.Winner == Split:
		return "split brain: both nodes have writes that the other lacks; `twinbd resolve` shows them"
	case m.follower():
		return fmt.Sprintf("catches up with %s", peer)
	case d.Promise != 0:
		return fmt.Sprintf("has promised %s not to serve (%d), and waits for its word or for the record to pass that", peer, d.Promise)
	case d.View.Epoch == 0 && m.set.Arbiter == ByWitness && !m.reachesWitness():
		return "waits for the witness"
	case d.View.Epoch == 0:
		return fmt.Sprintf("nobody has served %s yet: run `twinbd prim %s` on the node whose data is to be used", service, service)
	case m.sources && d.View.Holder == peer:
		return fmt.Sprintf("copies to %s, which has restarted, what it may have lost; then %s goes on", peer, peer)
	case m.sources:
		return fmt.Sprintf("copies to %s what it lacks; then %s, which has what is missing here, is to serve", peer, peer)
	case d.View.Holder == m.set.Node && m.peerWins() && m.catchesUp():
		return fmt.Sprintf("has restarted, and gets from %s, which kept running, what it may have lost; then it serves", peer)
	case !m.data.Whole:
		return fmt.Sprintf("the disk here is not whole: waits for %s", peer)
	case d.Maintenance:
		return "maintenance: nothing is taken over"
	case m.set.Arbiter == ByWitness && !m.reachesWitness():
		return fmt.Sprintf("waits for the witness: without it nobody can say whether %s has newer data", peer)
	case b.Wanted == WantStop && m.unmetSurvivor():
		return fmt.Sprintf("%s kept running, may have what was lost here, and the service is stopped there: `twinbd start %s` on it", peer, service)
	case d.View.Holder == m.set.Node && m.audible() && !m.met():
		return fmt.Sprintf("compares its data with %s before it serves", peer)
	case d.View.Holder == m.set.Node:
		return fmt.Sprintf("gives %s the time to take over, if it kept running", peer)
	case d.View.Mode == Pair && d.InStep >= d.View.Epoch && !m.audible() && m.set.Arbiter == ByWitness:
		return fmt.Sprintf("%s is silent: asks the witness to take over", peer)
	case d.View.Mode == Pair && d.InStep >= d.View.Epoch && !m.audible() && m.set.Arbiter == ByNobody:
		return fmt.Sprintf("%s is silent, and without a witness nobody takes over by himself: `twinbd primforce %s`", peer, service)
	case m.audible() && b.Wanted == WantStop:
		return fmt.Sprintf("%s has the newest data, and the service is stopped there", peer)
	}
	return fmt.Sprintf("%s holds the service in epoch %d and may have writes that this node lacks: waits for it", peer, d.View.Epoch)
}
