// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"fmt"
	"time"
)

// Machine decides, on one node, who serves one service: rules 16 to 24 of the
// design. It is pure: no clock, no socket, no goroutine, no random number. An
// input comes with the time, and what is to be done comes back as actions, in
// the order in which they are to be done. It is a value: a copy is an
// independent machine.
//
//	role        what this node does for clients
//
//	idle ──DoPromote──▶ promoting ──Promoted──▶ serving ──DoDown, DoDemote──▶ leaving ──Demoted──▶ idle
//	  ▲                                            │                                               ▲
//	  └──────────────────── DoExpel: the record names the other ───────────────────────────────────┘
//
// A right is never inferred. It comes from a granted change of the record (or
// what stands in for the witness), from a promise of the peer, or from the
// peer's handover; and right.go alone gives it to the volumes.
type Machine struct {
	set  Settings
	boot uint64 // names this process

	now     time.Duration
	began   time.Duration // the process, or the last time that its volumes might connect again
	durable NodeState
	data    Data

	role     role
	won      bool   // the right to serve is there; waits until the peer cannot be serving
	force    string // the operator's word, for the metadata of the disks
	term     uint64 // the epoch in which this node serves
	right    Right
	because  string // why the right is as it is
	risk     bool   // alone without having asked: lone = "continue"
	remote   bool   // serves through the peer's disk: the record names the peer (rule 18)
	lease    time.Duration
	told     toldRight
	hidden   bool // the virtual addresses are removed
	answered time.Duration

	succeeds bool // the process before this one left everything durable, and this one has not served yet

	teach   uint64        // the epoch that the peer is to learn; 0: none
	offer   bool          // the promise given is the peer's right to serve
	bound   time.Duration // when it was given
	refused time.Duration // when the peer last said that it does not hold it
	unused  uint64        // the peer's promise that this process took in pair, and was never alone by; 0: none
	going   departure

	application application
	connected   bool
	sources     bool          // what the peer lacks is copied to it, though this node does not serve
	parted      time.Duration // when this node, stopping, gave its last word
	everywhere  bool          // the operator stops both nodes

	peer    peerView
	relapse relapse
	witness witnessView
	ask     exchange
	pending pending
	ping    pingView
	fence   fenceView
	good    time.Duration // since when the preferred peer has been up to date; 0: it is not

	problem string // what went wrong last, for people

	tokens uint64
	shown  State
	said   Beat   // the last one, without its times
	urgent bool   // a beat is due
	who    string // who caused the input under way
	out    []Action
}

// role is what a node does for clients.
type role uint8

const (
	idle role = iota
	promoting
	serving
	leaving
)

func (r role) String() string { return [...]string{"idle", "promoting", "serving", "leaving"}[r] }

// Data is what the volumes say, all of a service together.
type Data struct {
	Whole    bool // every disk here is good and consistent
	New      bool // some disk has never held data
	Mirrored bool // every volume is connected, and nothing differs
	Kept     bool // this process was in step when it last saw the peer, on every volume
	Meeting  bool // some volume is just comparing what the nodes have
	Winner   Winner
	Owes     bool // some volume here has what the peer has not, and the peer waits for it
	Lost     bool // primary: no volume is replicated any more, all are flushed and wait for the right to go on
	Lone     bool // some volume has the right to be alone still, or has a word on that ahead of it
	Failed   bool // primary: a disk failed, and the volume waits until the record names the peer
	Stuck    bool // the data path has not turned for too long (rule 8)
	Detached bool // an interface that the service's addresses belong on does not carry

	// Addressed: the service's addresses are here. It decides nothing; the peer,
	// which may mind them until then, is told at once.
	Addressed bool
}

// Winner says whose blocks are the newer ones, as both nodes found when they met.
type Winner uint8

// The outcomes.
const (
	NotMet Winner = iota
	Same          // nothing differs, or nobody has to win yet
	Mine
	Theirs
	Split
)

type peerView struct {
	heard bool
	at    time.Duration
	since time.Duration // both have heard each other since
	beat  Beat
}

// NewMachine returns the machine of a process that has just started, with what
// the node durably knows. boot names the process and is not 0.
func NewMachine(set Settings, boot uint64, now time.Duration, durable NodeState) Machine {
	m := Machine{set: set, boot: boot, now: now, began: now, durable: durable, answered: now, shown: StateWait, succeeds: set.Succeeds}
	if durable.View.Holder == set.Node {
		// The record, as far as it is known, has named nobody but this node, and
		// what it had promised to the peer ended with the process. What the
		// witness says yet is judged when it says it.
		m.answered = now - set.patience()
	}
	return m
}

// begin and end enclose every input.
func (m *Machine) begin(now time.Duration) {
	if now-m.now >= m.set.Timeout {
		m.stoodStill()
	}
	m.now, m.who, m.out = max(m.now, now), "", nil
}

// end does what the input made due, and returns everything that is to be done.
func (m *Machine) end() []Action {
	for range maxSteps {
		before := len(m.out)
		m.step()
		if len(m.out) == before {
			m.tell()
			return m.out
		}
	}
	panic(fmt.Sprintf("failover: %s does not come to rest: role %v, term %d, %+v", m.set.Node, m.role, m.term, m.durable))
}

// maxSteps bounds what one input may set off; a machine that needs more goes in
// circles.
const maxSteps = 16

// step does what is due, given how things stand.
func (m *Machine) step() {
	m.expire()
	m.connect()
	switch m.role {
	case idle:
		m.whileIdle()
	case promoting:
		m.whilePromoting()
	case serving:
		m.whileServing()
	case leaving:
		m.whileLeaving()
	}
	m.setRight()
	m.setSource()
}

// tell says what has changed: to the peer at once, the state to people.
func (m *Machine) tell() {
	if s := m.State(); s != m.shown {
		m.event("state", string(m.shown), string(s), m.Reason())
		m.shown = s
	}
	b := m.compose()
	said := b
	said.Sent, said.Echo, said.EchoBoot = 0, 0, 0
	if m.urgent || said != m.said {
		m.said, m.urgent = said, false
		m.answer(&b)
		m.do(Action{Do: DoBeat, Beat: b})
	}
}

// Tick lets time pass, and speaks to the peer. It wants to be called every
// heartbeat.
func (m *Machine) Tick(now time.Duration) []Action {
	m.begin(now)
	m.urgent = true
	return m.end()
}

// Saw takes what the volumes say now.
func (m *Machine) Saw(now time.Duration, d Data) []Action {
	m.begin(now)
	m.data = d
	return m.end()
}

func (m *Machine) do(a Action) { m.out = append(m.out, a) }

func (m *Machine) event(kind, old, new, reason string) {
	m.do(Action{Do: DoEvent, Event: Event{Kind: kind, Old: old, New: new, Reason: reason, Who: m.who}})
}

// store is the one way in which the durable state changes; whatever is done
// after it can rely on it.
func (m *Machine) store(change func(*NodeState)) {
	next := m.durable
	change(&next)
	next.Known = max(next.Known, next.View.Epoch, next.Promise, next.Held, next.InStep)
	if next != m.durable {
		m.durable = next
		m.do(Action{Do: DoStore, State: next})
	}
}

// learn takes what somebody durably knows of the record. A lower one is old
// news.
func (m *Machine) learn(v View, known uint64) {
	m.store(func(d *NodeState) {
		d.Known = max(d.Known, known)
		if v.Epoch > d.View.Epoch || v.Epoch != 0 && mutated("nobody lowers an epoch that he knows") {
			d.View = v
		}
		if d.Promise != 0 && d.View.Epoch >= d.Promise {
			d.Promise = 0 // the record has passed it (rule 19)
		}
	})
	if m.durable.Promise == 0 {
		m.offer = false
	}
	p := &m.pending
	if p.on && p.why == forAlone && m.durable.View == (View{p.q.epoch(), m.set.Node, Alone}) {
		*p = pending{} // the peer knows that it was granted: that is an answer too
		m.granted(forAlone)
	}
	m.yield()
}

// yield: the record names the other, so this node serves no longer (rule 16),
// unless it holds a promise that is worth more than that record (rule 19), or
// wrote the peer in itself to be served from its disk (rule 18).
func (m *Machine) yield() {
	v := &m.durable.View
	if v.Holder != m.set.Peer || m.durable.Held > v.Epoch || m.remote && v.Epoch <= m.term {
		return
	}
	if m.pending.on && m.pending.why == forDisk {
		return // it may be what this node asked for: the answer tells
	}
	m.won = false
	if (m.role == serving || m.role == promoting) && !mutated("who is not the holder stops") {
		m.becomeExpelled(fmt.Sprintf("the record names %s in epoch %d", v.Holder, v.Epoch))
	}
}

// next is the number that this node asks for next: above all that it knows, or
// its peer is known to know.
func (m *Machine) next() uint64 { return max(m.durable.Known, m.peer.beat.Known) + 1 }
