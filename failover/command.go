// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"errors"
	"fmt"
	"time"
)

// Command is what an operator asks of one node.
type Command struct {
	Verb  Verb
	Who   string
	Force string // primforce: what goes into the metadata of the disks
}

// Verb is a command's name.
type Verb string

// The commands.
const (
	CommandStart     Verb = "start"
	CommandStop      Verb = "stop"     // the peer serves on
	CommandStopAll   Verb = "stop-all" // nobody serves
	CommandSwitch    Verb = "switch"
	CommandPrim      Verb = "prim"
	CommandForce     Verb = "primforce"
	CommandRest      Verb = "maintenance-on"
	CommandAttention Verb = "maintenance-off"
	CommandQuit      Verb = "quit" // the process ends; the state that was wanted stays
)

// Refused is why a command is not carried out, and what would help.
type Refused struct{ Reason, Hint string }

func (r *Refused) Error() string { return r.Reason }

func refuse(hint, format string, args ...any) error {
	return &Refused{Reason: fmt.Sprintf(format, args...), Hint: hint}
}

// Command takes an operator's word, or says why not. What it begins is seen in
// the state; a command that has already come true is not refused.
func (m *Machine) Command(now time.Duration, c Command) ([]Action, error) {
	m.begin(now)
	m.who = c.Who
	err := m.command(c)
	return m.end(), err
}

func (m *Machine) command(c Command) error {
	switch c.Verb {
	case CommandStart:
		m.want(WantStart)
	case CommandStop, CommandStopAll:
		m.stop(c.Verb == CommandStopAll)
	case CommandQuit:
		m.quit()
	case CommandSwitch:
		return m.commandSwitch()
	case CommandPrim:
		return m.prim()
	case CommandForce:
		return m.primforce(c.Force)
	case CommandRest, CommandAttention:
		m.rest(c.Verb == CommandRest)
	default:
		return errors.New("unknown command " + string(c.Verb))
	}
	return nil
}

// rest turns maintenance on, or off.
func (m *Machine) rest(on bool) {
	if m.durable.Maintenance == on {
		return
	}
	m.store(func(d *NodeState) { d.Maintenance = on })
	words := map[bool]string{true: "on", false: "off"}
	m.event("maintenance", words[!on], words[on], "the operator said so")
}

func (m *Machine) want(w Wanted) {
	m.store(func(d *NodeState) { d.Wanted = w })
	m.parted = 0
	if w == WantStart {
		m.everywhere = false
		m.application.ailing = false
		if m.going.why == stopping && m.role == serving {
			m.going = departure{}
		}
	}
}

// stop: this node is not to serve, nor to follow.
func (m *Machine) stop(all bool) {
	m.want(WantStop)
	m.everywhere = all
	if m.role == idle {
		m.won = false
		return
	}
	if m.going.why != expelled {
		m.going.why, m.going.all = stopping, all
	}
}

func (m *Machine) quit() {
	m.parted = 0
	if m.role == idle {
		m.won = false
		m.going.why = quitting
		return
	}
	if m.going.why != expelled {
		m.going.why = quitting
	}
}

// Gone reports whether a node that quits has said its last word.
func (m *Machine) Gone() bool {
	return m.going.why == quitting && m.role == idle && !m.connected
}

// commandSwitch exchanges primary and secondary.
func (m *Machine) commandSwitch() error {
	b := &m.peer.beat
	there := fmt.Sprintf("`twinbd status` on %s says more", m.set.Peer)
	switch {
	case m.role != serving:
		return refuse("ask the node that serves", "%s does not serve %s", m.set.Node, m.set.Service)
	case m.going.why != staying:
		return refuse("", "%s is about to stop serving %s", m.set.Node, m.set.Service)
	case !m.audible():
		return refuse("bring it back, or its network", "%s is not heard", m.set.Peer)
	case b.Wanted == WantStop:
		return refuse(fmt.Sprintf("`twinbd start %s` there", m.set.Service), "%s is stopped on %s", m.set.Service, m.set.Peer)
	case !m.data.Mirrored || !b.Whole:
		return refuse("wait until the resync is done: `twinbd wait`", "%s is not up to date", m.set.Peer)
	case m.set.Arbiter == ByWitness && !m.reachesWitness() && m.durable.Held == 0 && !m.paired():
		return refuse(there, "the witness is not reached")
	}
	m.application.ailing = false
	m.going = departure{why: switching}
	return nil
}

// prim: the operator chooses this node's data, where that loses nothing.
func (m *Machine) prim() error {
	d, b := &m.durable, &m.peer.beat
	service, peer := m.set.Service, m.set.Peer
	force := fmt.Sprintf("bring %s back; `twinbd primforce %s` gives its writes up", peer, service)
	switch {
	case m.role == serving || m.role == promoting:
		return refuse("", "%s serves %s already", m.set.Node, service)
	case m.audible() && b.Serving:
		return refuse(fmt.Sprintf("`twinbd switch %s` exchanges them", service), "%s serves %s", peer, service)
	case !m.data.Whole && !m.data.New:
		return refuse(fmt.Sprintf("run `twinbd prim %s` on %s; this node then catches up by itself", service, peer),
			"the disk of %s is not whole: it failed, or a resync onto it has not finished", m.set.Node)
	case m.data.Winner == Split:
		return refuse("`twinbd resolve` shows what each side has", "both nodes have writes that the other lacks")
	case m.data.Winner == Theirs:
		return refuse(fmt.Sprintf("run `twinbd prim %s` on %s; this node then catches up by itself", service, peer),
			"%s has newer data than %s", peer, m.set.Node)
	case m.set.Arbiter == ByWitness && !m.reachesWitness():
		return refuse("bring the witness back", "the witness is not reached, and without it nobody can say whether %s has newer data", peer)
	}
	return m.primBy(d, force)
}

// primBy is prim where nothing that this node sees speaks against it.
func (m *Machine) primBy(d *NodeState, force string) error {
	record := d.View
	if m.set.Arbiter == ByWitness {
		record = m.witness.record.View()
	}
	m.want(WantStart)
	switch {
	case record.Epoch < d.View.Epoch:
		return refuse(fmt.Sprintf("start twinbd on %s, so that both say what they know; `twinbd primforce %s` gives its writes up", m.set.Peer, m.set.Service),
			"the witness has lost records: it has epoch %d, and this node knows epoch %d held by %s", record.Epoch, d.View.Epoch, d.View.Holder)
	case record.Epoch == 0 && m.data.New && m.audible() && m.peer.beat.Whole:
		return refuse(fmt.Sprintf("run `twinbd prim %s` on %s; this node is then copied to", m.set.Service, m.set.Peer),
			"the disk is new here, and the one of %s has data", m.set.Peer)
	case record.Epoch == 0:
		m.pending = pending{}
		m.seek(forPrim)
		if m.set.Arbiter == ByWitness && !m.pending.on {
			return refuse("try again", "the witness has just been asked something else")
		}
		return nil
	case m.data.New:
		return refuse(fmt.Sprintf("run `twinbd prim %s` on %s; this node is then copied to", m.set.Service, m.set.Peer),
			"the disk is new here, and %s has been served before (epoch %d, held by %s)", m.set.Service, record.Epoch, record.Holder)
	case record.Holder == m.set.Node:
		return nil // it resumes by itself
	case record.Mode == Pair && d.InStep >= record.Epoch && m.set.Arbiter == ByWitness:
		return nil // it takes over by itself, once the peer is silent
	case m.audible() && (m.data.Winner == Mine || m.data.Winner == Same) && m.peer.beat.View.Holder == m.set.Peer:
		return nil // the peer gives the record to whoever has the newer data
	}
	last := "was never in step"
	if d.InStep > 0 {
		last = fmt.Sprintf("was last in step in epoch %d", d.InStep)
	}
	return refuse(force, "%s may lack acknowledged writes: %s has served %s alone since epoch %d, and this node %s",
		m.set.Node, record.Holder, m.set.Service, record.Epoch, last)
}

// primforce serves from here whatever the other has. The operator was told what
// is lost.
func (m *Machine) primforce(force string) error {
	switch {
	case m.role == serving || m.role == promoting:
		return refuse("", "%s serves %s already", m.set.Node, m.set.Service)
	case m.audible() && m.peer.beat.Serving:
		return refuse(fmt.Sprintf("stop twinbd on %s first", m.set.Peer),
			"%s serves %s now: forcing this node would make two histories", m.set.Peer, m.set.Service)
	case m.set.Arbiter == ByWitness && !m.fresh():
		return refuse("bring the witness back: it has to know who serves", "the witness is not reached")
	}
	m.want(WantStart)
	m.store(func(d *NodeState) { d.Promise = 0 })
	m.pending, m.ask.retry, m.force, m.won = pending{}, 0, force, false
	m.seek(forForce)
	return nil
}
