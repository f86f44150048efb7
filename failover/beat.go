// SPDX-License-Identifier: Apache-2.0

package failover

import "time"

// Beat is what a node says to its peer with every heartbeat, and at once when
// it changes: all that it is, never a step of a conversation. Whatever is to be
// agreed is agreed by each saying how it stands until the other has seen it; so
// a beat that is lost, doubled or late costs time and nothing else.
//
// What must stay true when a late beat says it is durable: View, Known, InStep,
// Promise, Held and Disowned only ever grow, or are ended by a higher number.
type Beat struct {
	Boot uint64        // of the process that speaks
	Sent time.Duration // on the speaker's clock

	// EchoBoot and Echo repeat what the newest beat heard says of itself. With
	// Follows they are the answer that renews the peer's lease, which is
	// counted from when the peer sent that beat.
	EchoBoot uint64
	Echo     time.Duration

	View     View
	Known    uint64
	InStep   uint64
	Follows  uint64 // the epoch in which the speaker follows; 0: it does not, and this is no answer
	Serving  bool
	Term     uint64 // the epoch in which it serves
	Teach    uint64 // a primary's: learn durably that you are in step in this epoch
	Promise  uint64 // the number that binds the speaker not to serve
	Offer    bool   // the promise is meant for a peer that does not serve yet
	Held     uint64 // the number of the peer's promise that the speaker holds
	Disowned uint64 // every promise up to this one binds nobody
	Wants    bool   // the speaker would serve alone and can ask nobody but the peer

	Witness bool // the speaker has heard the witness within its timeout
	Wanted  Wanted
	Resting bool // maintenance

	Whole    bool // its disks are good and consistent
	Mirrored bool // as it sees it, everything is mirrored
	Kept     bool // its process has been in step since it started
	Ailing   bool // the application has failed there, and not been well since
	Detached bool // the service's network does not carry there
	Stuck    bool // its data path stands still: it renews no lease (rule 8)
	Succeeds bool // its process has replaced one that left everything durable, and has not served yet
	Weary    bool // the holder has restarted again, soon after it had before: the speaker is to serve (rule 22)

	Addressed bool // the service's addresses are there
}

// compose says what this node is.
func (m *Machine) compose() Beat {
	d := &m.durable
	return Beat{
		Boot: m.boot, Sent: m.now, EchoBoot: m.peer.beat.Boot, Echo: m.peer.beat.Sent,
		View: d.View, Known: d.Known, InStep: d.InStep, Follows: m.follows(),
		Serving: m.role == serving || m.role == promoting || m.role == leaving, Term: m.term, Teach: m.teach,
		Promise: m.repeated(), Offer: m.offer, Held: d.Held, Disowned: d.Disowned, Wants: m.wants(),
		Witness: m.reachesWitness(), Wanted: d.Wanted, Resting: d.Maintenance,
		Whole: m.data.Whole, Mirrored: m.data.Mirrored, Kept: m.data.Kept, Ailing: m.application.ailing, Detached: m.data.Detached, Stuck: m.data.Stuck, Succeeds: m.succeeds, Weary: m.relapse.again,
		Addressed: m.data.Addressed,
	}
}

// repeated is the promise that binds this node, said at every contact: a lost
// message binds nobody (rule 19).
func (m *Machine) repeated() uint64 {
	if mutated("a bound node repeats its promise") && m.now-m.bound > m.set.Heartbeat {
		return 0
	}
	return m.durable.Promise
}

// answer notes that a beat goes out which says that this node follows: from the
// peer's last beat, which it echoes, this node's patience counts (rule 20).
func (m *Machine) answer(b *Beat) {
	if b.Follows != 0 && m.peer.heard {
		m.answered = max(m.answered, m.peer.at)
	}
}

// follows is the epoch in which this node follows the peer, or 0. A node that
// has restarted follows nobody until it has reconnected, and one that asks to
// take over answers nothing until it knows what became of that (rule 16).
func (m *Machine) follows() uint64 {
	d, b := &m.durable, &m.peer.beat
	switch {
	case m.role != idle || (m.won || m.pending.on) && !mutated("silence is checked again at use"):
		return 0
	case d.View.Holder == m.set.Node:
		if b.Serving && b.Term == d.View.Epoch { // from this node's disk (rule 18)
			return d.View.Epoch
		}
		return 0
	case !m.data.Kept && !mutated("a restarted node follows nobody"), b.Stuck:
		return 0
	}
	return d.InStep
}

// Heard takes a beat of the peer.
func (m *Machine) Heard(now time.Duration, b Beat) []Action {
	m.begin(now)
	if p := &m.peer; p.heard && p.beat.Boot == b.Boot && b.Sent < p.beat.Sent {
		return m.end() // overtaken by a newer one
	}
	if b.Serving && b.Term != m.peer.beat.Term {
		m.urgent = true // it waits for its first lease
	}
	if deaf := b.EchoBoot != m.boot || m.now-b.Echo >= m.set.Timeout; !m.audible() || deaf && b.Wanted == WantStart {
		m.peer.since = m.now // as long as it does not hear this node, nothing can be compared
	}
	m.noticeRestart(&b)
	m.peer.heard, m.peer.at, m.peer.beat = true, m.now, b
	if m.followed(&b) {
		m.renewed(b.Echo)
	}
	m.learn(b.View, b.Known)
	m.hearPromise(&b)
	m.hearTeaching(&b)
	return m.end()
}

// relapse is that of a holder whose process ends again and again.
type relapse struct {
	at    time.Duration // when another process of it was first heard, the last time; 0: never
	again bool          // soon after the time before
}

// relapseWithin is how soon that is, in timeouts.
const relapseWithin = 10

// noticeRestart: the holder's process may be another one than before. What it ended
// of may be what it is asked for: when that happens again soon, and was not meant, the
// service is better off here.
func (m *Machine) noticeRestart(b *Beat) {
	r := &m.relapse
	switch {
	case !m.peer.heard || b.Boot == m.peer.beat.Boot:
	case m.durable.View.Holder != m.set.Peer || m.durable.View.Mode != Pair || !m.data.Kept || b.Succeeds:
		r.again = false
	default:
		*r = relapse{m.now, r.at != 0 && m.now-r.at < relapseWithin*m.set.Timeout}
	}
}

// followed reports whether a beat is the answer of a peer that follows this node
// in the epoch in which it serves, or has learned of the next already.
func (m *Machine) followed(b *Beat) bool {
	return m.term != 0 && b.EchoBoot == m.boot && b.Follows >= m.term
}

// audible reports whether the peer was heard within the timeout.
func (m *Machine) audible() bool { return m.peer.heard && m.now-m.peer.at < m.set.Timeout }

// patient reports whether the peer cannot be serving on a lease any more:
// either it has not been answered for long enough, or it says, durably, that
// this node holds the record and that it has stopped.
func (m *Machine) patient() bool {
	return m.now-m.answered >= m.set.patience() || m.peerYields() || mutated("silence is checked again at use")
}

// peerYields reports whether the peer is known not to serve, nor to begin by
// any right that it had.
func (m *Machine) peerYields() bool {
	b := &m.peer.beat
	return m.peer.heard && !b.Serving && (b.View.Holder == m.set.Node && b.View.Epoch == m.durable.View.Epoch ||
		m.durable.Held != 0 && b.Promise == m.durable.Held)
}

// hearTeaching: the primary says that this node is in step in a new epoch. That
// is durable before the next beat says it (rule 16).
func (m *Machine) hearTeaching(b *Beat) {
	if b.Teach == 0 || !b.Serving || b.Teach <= m.durable.InStep || b.Teach < m.durable.View.Epoch {
		return
	}
	if m.role != idle || m.won || m.durable.Wanted == WantStop || m.going.why == quitting || !m.data.Mirrored || !b.Mirrored {
		return
	}
	m.store(func(d *NodeState) {
		d.InStep, d.Known = b.Teach, max(d.Known, b.Teach)
	})
}
