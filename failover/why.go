// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"fmt"
	"strings"
)

// Why says in one paragraph why the state is what it is, and what happens when
// the peer, the link or the witness fails now.
func (m *Machine) Why() string {
	said := []string{
		fmt.Sprintf("%s is %s on %s: %s.", m.set.Service, m.State(), m.set.Node, m.Reason()),
		m.whyRecord(),
		m.ifPeerFails(),
		m.ifLinkFails(),
		m.ifArbiterFails(),
	}
	var text []string
	for _, s := range said {
		if s != "" {
			text = append(text, s)
		}
	}
	return strings.Join(text, " ")
}

func (m *Machine) whyRecord() string {
	d := &m.durable
	if d.View.Epoch == 0 {
		return "Nobody has served it yet."
	}
	where := map[Arbiter]string{ByWitness: "The record at the witness", ByPing: "The nodes' own record (there is no witness)",
		ByFence: "The nodes' own record (there is no witness)", ByNobody: "The nodes' own record (there is no witness)"}[m.set.Arbiter]
	text := fmt.Sprintf("%s says: epoch %d, %s, %s.", where, d.View.Epoch, d.View.Holder, d.View.Mode)
	if d.Promise != 0 {
		text += fmt.Sprintf(" This node has promised not to serve (%d).", d.Promise)
	}
	if d.Held != 0 {
		text += fmt.Sprintf(" It holds the promise of %s not to serve (%d).", m.set.Peer, d.Held)
	}
	if d.Maintenance {
		text += " Maintenance is on: nothing is taken over or switched by itself."
	}
	return text
}

func (m *Machine) ifPeerFails() string {
	peer := m.set.Peer
	switch m.State() {
	case StatePrim:
		return fmt.Sprintf("If %s fails, clients wait until it is given up, then this node goes on alone%s.", peer, m.byWhat())
	case StateAlone:
		return fmt.Sprintf("If %s fails, nothing changes; if this node fails, nobody serves until it is back: it has the only whole copy.", peer)
	case StateSecond:
		return fmt.Sprintf("If %s fails, %s.", peer, m.takeover())
	}
	return ""
}

func (m *Machine) byWhat() string {
	switch {
	case m.durable.Held != 0:
		return ", by the promise that it holds"
	case m.set.Arbiter == ByWitness:
		return ", once the witness has written that down"
	case m.set.Arbiter == ByPing:
		return ", if the router answers"
	case m.set.Arbiter == ByFence:
		return ", once the fence command has switched it off"
	}
	return ""
}

func (m *Machine) takeover() string {
	switch {
	case m.durable.Maintenance:
		return "nothing is taken over: maintenance is on"
	case m.durable.Promise != 0:
		return "this node keeps its promise and waits for the operator, for the witness is not reached"
	case m.set.Arbiter == ByWitness:
		return fmt.Sprintf("this node takes over about %v later", m.set.patience())
	case m.set.Arbiter == ByPing:
		return fmt.Sprintf("this node takes over about %v later, if the router answers and no address of the service does from the hardware of %s", m.set.patience(), m.set.Peer)
	case m.set.Arbiter == ByFence:
		return "this node takes over once the fence command has switched it off"
	}
	return fmt.Sprintf("nobody takes over by itself: there is no witness; `twinbd primforce %s`", m.set.Service)
}

func (m *Machine) ifLinkFails() string {
	if s := m.State(); s != StatePrim && s != StateSecond {
		return ""
	}
	switch m.set.Arbiter {
	case ByWitness:
		return "If all links between the nodes fail, the one that serves goes on, for the witness keeps the other from it."
	case ByPing:
		return "If all links between the nodes fail and both reach the router, both may serve: that is found at reconnection, and nothing is discarded without you. A witness would prevent it."
	case ByFence:
		return "If all links between the nodes fail, each tries to switch the other off, the one that serves first."
	}
	return "If all links between the nodes fail, the one that serves goes on alone."
}

func (m *Machine) ifArbiterFails() string {
	switch {
	case m.set.Arbiter == ByPing:
		return "If the router fails, nothing changes while the nodes hear each other; a node that hears neither stops serving."
	case m.set.Arbiter != ByWitness:
		return ""
	case !m.reachesWitness() && m.durable.Held == 0 && m.durable.Promise == 0 && (m.State() == StatePrim || m.State() == StateSecond):
		return "The witness is not reached from here."
	case !m.reachesWitness():
		return "The witness is not reached."
	case m.State() == StatePrim || m.State() == StateSecond:
		return "If the witness fails, service goes on: the secondary then promises not to serve, so that the primary can go on alone."
	}
	return "If the witness fails, nothing changes while this state lasts."
}
