// SPDX-License-Identifier: Apache-2.0

package failover

import "time"

// What a serving node may acknowledge, and how that changes. The volumes check
// the end of the lease themselves before every acknowledgement, reads included
// (rule 20): a Machine that is late, or frozen, lets nobody be served.

type toldRight struct {
	right Right
	until time.Duration
}

// allowed is the right as it stands now.
func (m *Machine) allowed() toldRight {
	switch {
	case m.role == idle, m.going.demoting, m.right == RightNone:
	case m.right == RightAlone && !mutated("alone needs no lease"):
		return toldRight{RightAlone, Forever}
	case m.leaseless(), mutated("pair needs a lease"):
		return toldRight{RightPair, Forever}
	case m.now < m.lease:
		return toldRight{RightPair, m.lease}
	}
	return toldRight{}
}

// leaseless: nobody can take over without this node's own word, or without
// having switched it off.
func (m *Machine) leaseless() bool {
	switch m.set.Arbiter {
	case ByFence, ByNobody:
		return !m.remote
	}
	return m.durable.Held > m.durable.View.Epoch
}

// setRight tells the volumes what is allowed, and takes the addresses away
// while nothing is.
func (m *Machine) setRight() {
	a := m.allowed()
	if a.right == RightAlone && !mutated("a volume is alone from when it is told") {
		m.data.Lone = true // whatever the volumes said last: they have that, or will
	}
	if m.role == promoting || m.role == serving || m.role == leaving {
		if a != m.told {
			if a.right != m.told.right {
				m.event("right", m.told.right.String(), a.right.String(), m.because)
			}
			m.do(Action{Do: DoRight, Right: a.right, Until: a.until})
		}
		if hide := a.right == RightNone; hide != m.hidden && m.application.state != appDown {
			m.hidden = hide
			if hide {
				m.do(Action{Do: DoHide})
			} else {
				m.do(Action{Do: DoShow, Epoch: m.term})
			}
		}
	}
	m.told = a
}

// renewed takes an answer to something that this node asked at the given time:
// whoever gave it lets nobody serve before timeout and margin have passed since
// (rule 20). A data path that stands still renews nothing (rule 8).
func (m *Machine) renewed(asked time.Duration) {
	if m.data.Stuck || m.role == idle {
		return
	}
	if mutated("a lease counts from the asking") {
		asked = m.now
	}
	m.lease = max(m.lease, asked+m.set.Timeout)
}

// setSource lets a node that does not serve be the source of a resync. Nothing is
// acknowledged by it.
func (m *Machine) setSource() {
	sources := m.role == idle && !m.won && !m.pending.on && m.durable.Wanted == WantStart && m.going.why == staying &&
		m.audible() && !m.peer.beat.Serving && (m.copiesFirst() || m.restores())
	if sources != m.sources {
		m.sources = sources
		m.do(Action{Do: DoSource, Off: !sources})
	}
}

// copiesFirst: a holder cannot serve, because of one volume, and is the source of
// another: of two nodes each of which lacks what only the other has, both would wait
// for ever. Its right to be the only copy that counts is the record's, or the peer's
// promise (rule 18). When the peer lacks nothing any more, it is given the service.
func (m *Machine) copiesFirst() bool {
	d, b := &m.durable, &m.peer.beat
	holds := d.View.Holder == m.set.Node && d.View.Mode == Alone && (m.set.Arbiter != ByWitness || m.fresh()) ||
		d.Held > d.View.Epoch && b.Promise == d.Held
	return holds && m.data.Owes && (!m.data.Whole || m.data.Winner == Theirs)
}

// restores: the holder has restarted, and this node kept running in step: it copies
// to the holder what that may have lost, and then the holder goes on (rule 22). If
// that dies meanwhile, this node takes over as it would have before: it has all that
// was acknowledged, in the record's epoch.
func (m *Machine) restores() bool {
	d, b := &m.durable, &m.peer.beat
	return d.View.Holder == m.set.Peer && d.View.Mode == Pair && b.View == d.View && d.InStep >= d.View.Epoch &&
		d.Promise == 0 && b.Held == 0 && m.data.Whole && m.data.Kept && !b.Kept && m.data.Winner == Mine && !m.relapse.again
}

// keepRight does what a serving node has to do about its right.
func (m *Machine) keepRight() {
	switch {
	case m.pending.on: // one change at a time: its outcome decides what can be asked next
	case m.data.Failed && !m.remote:
		m.giveDisk()
	case m.data.Lost && m.right != RightAlone:
		m.seekAlone()
	case m.data.Mirrored && !m.remote && !m.paired():
		m.pair()
	case m.right == RightAlone && !m.data.Mirrored && (m.durable.Held != 0 || m.risk):
		m.claim()
	}
}

// paired reports whether the record says pair, with this node, in the epoch in which
// it serves, and nothing else gives it a right. A record from before it went alone by
// a promise says nothing of what the two have now.
func (m *Machine) paired() bool {
	d := &m.durable
	return m.right == RightPair && d.View.Mode == Pair && d.View.Holder == m.set.Node && d.View.Epoch >= m.term && d.Held == 0
}

// seekAlone: the peer is lost, every volume has stopped replicating and is
// flushed (rules 9, 10, 16). Nothing is acknowledged alone before the right is
// there, durably.
func (m *Machine) seekAlone() {
	d := &m.durable
	switch {
	case m.remote || !m.data.Whole: // the only whole disk is the peer's
	case d.Held > d.View.Epoch:
		m.becomeAlone(m.term, "the peer has promised not to serve")
	case m.set.Arbiter == ByWitness && m.set.Continue && !m.reachesWitness() && m.now >= m.lease:
		m.risk = true
		m.becomeAlone(m.term, "it reaches neither peer nor witness, and lone = \"continue\"")
	default:
		m.seek(forAlone)
	}
}

// becomeAlone is the only way to the right to acknowledge alone.
func (m *Machine) becomeAlone(term uint64, reason string) {
	m.right, m.term, m.teach, m.unused, m.because = RightAlone, term, 0, 0, reason
}

// pair brings the record back to pair (rule 16), at every try in this order:
// the peer durably learns the next epoch; this node gives up being alone, and
// durably the promise that it holds; then, when every volume has taken that, it asks.
// While the answer is missing it has neither right, and serves what both have on its
// lease.
func (m *Machine) pair() {
	if m.set.Arbiter == ByWitness && !m.fresh() || m.now < m.ask.retry {
		return
	}
	d, b := &m.durable, &m.peer.beat
	if m.set.Arbiter == ByWitness && m.witness.record.Holder != m.set.Node {
		m.claim() // an old request of the peer's was granted late: the promise wins
		return
	}
	if m.teach == 0 || m.teach <= d.View.Epoch || m.teach <= d.Held {
		m.teach = m.next()
		m.store(func(d *NodeState) { d.Known = m.teach })
	}
	if !m.audible() || b.InStep != m.teach && !mutated("the peer learns the epoch before pair") || !b.Mirrored || b.Wanted == WantStop {
		return
	}
	m.store(func(d *NodeState) {
		d.Disowned, d.Held = max(d.Disowned, d.Held), 0
	})
	m.right, m.term, m.risk, m.because = RightPair, m.teach, false, "every volume is up to date"
	if m.followed(b) {
		m.renewed(b.Echo)
	}
	if !m.data.Lone || mutated("alone is given up before pair is asked") {
		m.seek(forPair)
	}
}

// giveDisk: a disk here has failed. The record names the peer before anything
// is acknowledged without it (rule 18).
func (m *Machine) giveDisk() {
	if !mutated("the right follows the disk") && m.audible() && m.peer.beat.Whole && (m.right != RightAlone || m.data.Mirrored) {
		m.seek(forDisk)
	}
}

// claim writes this node in, alone: by the promise that it holds (rule 19), or
// because it went on at the operator's risk.
func (m *Machine) claim() {
	if m.set.Arbiter == ByWitness && m.fresh() {
		m.seek(forClaim)
	}
}

// becomeExpelled stops serving at once: another node holds the record.
func (m *Machine) becomeExpelled(reason string) {
	m.right, m.because, m.risk, m.remote, m.teach, m.lease = RightNone, reason, false, false, 0, 0
	m.role, m.going = leaving, departure{why: expelled, demoting: true, downing: true}
	m.application.state = appKilled
	m.do(Action{Do: DoExpel})
	m.do(Action{Do: DoKill, Epoch: m.term})
	m.term = 0
}

// becomePromoting begins to serve. The right is there, and the peer cannot be
// serving any more.
func (m *Machine) becomePromoting() {
	m.won, m.role, m.lease, m.succeeds = false, promoting, 0, false
	if b := &m.peer.beat; m.right == RightPair && m.followed(b) {
		m.renewed(b.Echo)
	}
	m.told = m.allowed()
	m.store(func(d *NodeState) { d.InStep = 0 })
	m.do(Action{Do: DoPromote, Right: m.told.right, Until: m.told.until, Epoch: m.term, Force: m.force})
	m.force = ""
}

// Promoted: every volume serves, or one cannot.
func (m *Machine) Promoted(now time.Duration, err error) []Action {
	m.begin(now)
	switch {
	case m.role != promoting: // expelled meanwhile
	case err != nil:
		m.problem = "become primary: " + err.Error()
		m.role, m.going, m.right = leaving, departure{why: failed, demoting: true}, RightNone
		m.ask.retry = m.now + m.set.Timeout
		m.do(Action{Do: DoExpel})
	default:
		m.becomeServing()
	}
	return m.end()
}

// becomeServing: every volume serves; now the application.
func (m *Machine) becomeServing() {
	m.role, m.hidden, m.problem = serving, false, ""
	m.ask.at = m.now - m.set.Heartbeat // tell the witness at once
	m.bringUp()
}
