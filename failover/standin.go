// SPDX-License-Identifier: Apache-2.0

package failover

import "time"

// What stands in for a witness where there is none (rule 19). A router's address
// is no witness: it remembers nothing, so a split stays possible.

// pingView is what the router and the service's addresses say.
type pingView struct {
	on    bool
	nonce uint64
	at    time.Duration // when it was asked
	why   purpose
	good  bool // the last one was answered, and no address of the service answered from the peer's hardware
}

// Ping is the outcome of DoPing.
type Ping struct {
	Router bool // the router answered
	Peer   bool // an address of the service answered from the peer's hardware
}

// seekPing asks the router for a purpose: who has lost its peer on every path
// goes on, or takes over, only while the router answers and the peer is not seen
// to have the service's addresses.
func (m *Machine) seekPing(p purpose) {
	switch {
	case m.audible() && p != forResume: // the peer is there: its promise is asked for
	case m.ping.on && m.now-m.ping.at < m.set.Timeout:
		m.ping.why = p
	default:
		m.askPing(p)
	}
}

func (m *Machine) askPing(p purpose) {
	m.ping.on, m.ping.at, m.ping.why = true, m.now, p
	m.ping.nonce++
	m.do(Action{Do: DoPing, Nonce: m.ping.nonce})
}

// Pinged takes the outcome of DoPing. Without a purpose it renews the lease of a
// primary in pair, as a witness's answer would.
func (m *Machine) Pinged(now time.Duration, nonce uint64, p Ping) []Action {
	m.begin(now)
	v := &m.ping
	if !v.on || v.nonce != nonce {
		return m.end()
	}
	inTime := m.now-v.at < m.set.Timeout
	v.on, v.good = false, p.Router && inTime
	if v.good && !p.Peer {
		m.renewed(v.at)
		if m.stillDue(v.why) {
			m.decide(v.why)
		}
	}
	v.why = forNothing
	return m.end()
}

// stillDue reports whether what was asked for is still wanted, now that the
// answer is there.
func (m *Machine) stillDue(p purpose) bool {
	switch p {
	case forAlone:
		return m.role != idle && m.data.Lost && m.right != RightAlone && !m.audible()
	case forTakeover:
		return m.role == idle && !m.won && m.mayTakeOver()
	case forResume:
		return m.role == idle && !m.won && m.mayResume()
	}
	return false
}

// fenceView is the fence command under way.
type fenceView struct {
	on   bool
	why  purpose
	void bool          // this node stood still meanwhile
	wait time.Duration // not again before this
}

// seekFence switches the peer off, and goes on only when that is certain. The
// secondary waits longer, so that the two do not fence each other.
func (m *Machine) seekFence(p purpose) {
	if m.fence.on || m.now < m.fence.wait || m.audible() {
		return
	}
	if p == forTakeover && m.now-m.answered < 2*m.set.patience() {
		return
	}
	m.fence = fenceView{on: true, why: p}
	m.event("fence", "", m.set.Peer, "it is silent, and "+p.String()+" needs it off")
	m.do(Action{Do: DoFence})
}

// Fenced takes the outcome of the fence command; nil: the peer is certainly off.
func (m *Machine) Fenced(now time.Duration, err error) []Action {
	m.begin(now)
	f := m.fence
	m.fence = fenceView{wait: m.now + m.set.Timeout}
	switch {
	case err != nil:
		m.problem = "fence " + m.set.Peer + ": " + err.Error()
	case f.void:
		m.problem = "fence " + m.set.Peer + ": this node stood still meanwhile, and does not know what " + m.set.Peer + " has done since"
	case m.stillDue(f.why):
		m.decide(f.why)
	}
	return m.end()
}

// stoodStill: this node has not run for a timeout. What it had asked belongs to
// a world that may be gone, and the peer may serve by now: the answer, though it
// is there, is nobody's leave.
func (m *Machine) stoodStill() {
	m.ping.on, m.fence.void = false, m.fence.on
}
