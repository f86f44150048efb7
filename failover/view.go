// SPDX-License-Identifier: Apache-2.0

package failover

// What a shell may want to know of a machine, besides what it is told to do.

// Epoch is the highest epoch of the record that this node durably knows.
func (m *Machine) Epoch() uint64 { return m.durable.View.Epoch }

// Durable is what the node durably knows.
func (m *Machine) Durable() NodeState { return m.durable }

// Serves reports whether this node serves, in that epoch.
func (m *Machine) Serves(term uint64) bool { return m.role == serving && m.term == term }

// Serving reports whether this node serves, or is about to or was until now.
func (m *Machine) Serving() bool { return m.role != idle }

// Stands reports whether the volumes may not be connected.
func (m *Machine) Stands() bool { return !m.connected }

// GoingAlone reports whether the right to be alone is asked for: until that is
// decided no volume may begin to replicate again (rule 10).
func (m *Machine) GoingAlone() bool { return m.pending.on && m.pending.why == forAlone }

// PeerServes reports whether the peer, when last heard, served.
func (m *Machine) PeerServes() bool { return m.peer.heard && m.peer.beat.Serving }

// PeerAudible reports whether the peer was heard within the timeout, as of the
// last input.
func (m *Machine) PeerAudible() bool { return m.audible() }

// Peer is the peer's last beat.
func (m *Machine) Peer() Beat { return m.peer.beat }

// ReachesWitness reports whether the witness has answered within the timeout, as
// of the last input.
func (m *Machine) ReachesWitness() bool { return m.reachesWitness() }

// Settings are those of the machine.
func (m *Machine) Settings() Settings { return m.set }

// Allowed is the right at the last input.
func (m *Machine) Allowed() Right { return m.allowed().right }

// Term is the epoch in which this node serves; 0 when it does not.
func (m *Machine) Term() uint64 { return m.term }

// Runs reports whether this node serves, and the application is up.
func (m *Machine) Runs() bool { return m.role == serving && m.application.state == appUp }

// Changing reports whether this node is about to serve, or to stop serving.
func (m *Machine) Changing() bool {
	return m.won || m.role == promoting || m.role == leaving || m.going.why != staying || m.application.state == appGoingUp
}

// Leaving reports whether this node is about to stop serving.
func (m *Machine) Leaving() bool { return m.going.why != staying }

// Problem is why the last attempt to serve failed; "" when nothing did.
func (m *Machine) Problem() string {
	if m.role != idle || m.won || m.pending.on {
		return ""
	}
	if m.problem != "" {
		return m.problem
	}
	return m.witness.reason
}

// Informed reports whether what speaks for or against serving here is known as
// well as it will be soon: the witness has answered, and a peer that is heard has
// compared its data with this node's.
func (m *Machine) Informed() bool {
	if m.set.Arbiter == ByWitness && !m.fresh() {
		return false
	}
	if !m.audible() {
		return m.now-m.began >= m.set.Timeout
	}
	return !m.data.Meeting && m.data.Winner != NotMet
}

// HandsOver reports whether this node is stopping for the peer to serve.
func (m *Machine) HandsOver() bool { return m.role == leaving && m.going.handover }

// LeavesInOrder reports whether this node is stopping of its own accord, its
// application down already.
func (m *Machine) LeavesInOrder() bool {
	return m.role == leaving && m.going.demoting && m.going.why != expelled && m.going.why != failed
}
