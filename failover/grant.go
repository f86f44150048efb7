// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Asking for a right: at the witness, or at what stands in for it.

// purpose says what a change of the record is asked for.
type purpose uint8

const (
	forNothing  purpose = iota
	forAlone            // a holder that serves goes on without its peer
	forPair             // a holder that serves returns to pair
	forDisk             // a holder whose disk failed names the peer
	forClaim            // the promise's holder writes itself in
	forResume           // a holder that restarted serves again
	forGive             // a holder that does not serve names the peer, which has everything
	forHandover         // a holder that has stopped names the peer
	forTakeover         // the other one, in step, takes over
	forPrim             // an operator's word, where there is no record
	forForce            // an operator's word, whatever there is
)

func (p purpose) String() string {
	return [...]string{"nothing", "alone", "pair", "disk", "claim", "resume", "give", "handover", "takeover", "prim", "primforce"}[p]
}

// change is what the record becomes.
func (m *Machine) change(p purpose) (holder string, mode Mode) {
	switch p {
	case forPair:
		return m.set.Node, Pair
	case forTakeover:
		if mutated("a takeover leaves alone") {
			return m.set.Node, Pair
		}
	case forClaim:
		if mutated("a claim leaves alone") {
			return m.set.Node, Pair
		}
	case forHandover:
		return m.set.Peer, Pair
	case forDisk, forGive:
		return m.set.Peer, Alone
	}
	return m.set.Node, Alone
}

// witnessView is the witness's last answer.
type witnessView struct {
	heard  bool
	at     time.Duration // when it came
	seen   Stamp
	record Record
	reason string // why the last change was refused for good, for people
}

// exchange is the one conversation with the witness under way. A late answer to
// an earlier one is nobody's.
type exchange struct {
	on    bool
	nonce uint64
	at    time.Duration // when it was begun
	retry time.Duration // no change is asked for before this
}

// pending is a change that was asked for and not answered. It is sent again as
// it is, until it is answered, or so old that the witness must find it void.
type pending struct {
	on    bool
	why   purpose
	q     Request
	named time.Duration // when the answer that it names came
}

// seek asks for a change. Where there is no witness, the decision is local: it
// is made durable, and the peer learns it by the next beat.
func (m *Machine) seek(p purpose) {
	switch {
	case m.pending.on:
	case m.set.Arbiter == ByWitness:
		m.request(p)
	case p == forDisk, p == forGive, p == forHandover, p == forPair, p == forPrim, p == forForce:
		m.decide(p)
	case m.set.Arbiter == ByPing:
		m.seekPing(p)
	case m.set.Arbiter == ByFence && (p == forAlone || p == forTakeover):
		m.seekFence(p)
	case p != forTakeover:
		m.decide(p)
	}
}

// raise is the epoch of the changed record.
func (m *Machine) raise(p purpose) uint64 {
	switch p {
	case forPair, forHandover:
		return m.teach // what the peer has learned
	case forForce:
		return m.next() + forceGap
	}
	return m.next()
}

// forceGap keeps an operator's epoch above whatever a node that nobody reaches
// raises in the meantime.
const forceGap = 1 << 20

// decide is a change of the record where nobody but the nodes keeps it.
func (m *Machine) decide(p purpose) {
	v := View{Epoch: m.raise(p)}
	v.Holder, v.Mode = m.change(p)
	m.store(func(d *NodeState) { d.View = v })
	m.granted(p)
}

// request sends a change to the witness. It names the witness's last answer,
// which must be recent, for the request is void when that has become old.
func (m *Machine) request(p purpose) {
	if !m.fresh() || m.now < m.ask.retry {
		return
	}
	raise := m.raise(p)
	m.store(func(d *NodeState) { d.Known = max(d.Known, raise) })
	q := Request{
		Service: m.set.Service, Replaces: m.witness.record.Epoch, RaiseTo: raise,
		Operator: p == forPrim || p == forForce, Token: m.token(), Seen: m.witness.seen, Timeout: m.set.Timeout,
	}
	q.Holder, q.Mode = m.change(p)
	if m.durable.Held != 0 && (p == forClaim || p == forGive || p == forDisk) && m.durable.Held > q.Replaces {
		q.Claim = m.durable.Held
	}
	m.pending = pending{on: true, why: p, q: q, named: m.witness.at}
	m.send()
}

// token makes a request this process's own, without a random number.
func (m *Machine) token() (t Token) {
	m.tokens++
	binary.BigEndian.PutUint64(t[:8], m.boot)
	binary.BigEndian.PutUint64(t[8:], m.tokens)
	return t
}

// send begins the exchange with the witness that is due.
func (m *Machine) send() {
	m.ask.on, m.ask.at = true, m.now
	m.ask.nonce++
	if m.pending.on {
		m.do(Action{Do: DoChange, Nonce: m.ask.nonce, Request: m.pending.q})
		return
	}
	m.do(Action{Do: DoQuery, Nonce: m.ask.nonce, Query: Query{
		Service: m.set.Service, Serving: m.role != idle && m.going.why != expelled && !m.data.Stuck && !m.remote,
		Knows: m.durable.View, Seen: m.witness.seen, Timeout: m.set.Timeout,
	}})
}

// expire begins an exchange when one is due, and drops a change that nobody
// can grant any more. What became of it is read from the record.
func (m *Machine) expire() {
	if m.set.Arbiter != ByWitness {
		return
	}
	if m.pending.on && m.now-m.pending.named >= m.set.patience() {
		m.pending = pending{}
		m.witness.heard = false // what is known of the record is older than the change
	}
	switch age := m.now - m.ask.at; {
	case m.ask.on && age < m.set.repeat():
	case m.ask.nonce == 0, m.ask.on, m.pending.on, age >= m.set.Heartbeat:
		m.send()
	}
}

// fresh reports whether the last answer is recent enough to be named.
func (m *Machine) fresh() bool {
	return m.witness.heard && m.now-m.witness.at < m.set.Timeout/2
}

// reachesWitness reports whether the witness has answered within the timeout.
func (m *Machine) reachesWitness() bool {
	return m.witness.heard && m.now-m.witness.at < m.set.Timeout
}

// Answered takes the witness's answer to the exchange of that number.
func (m *Machine) Answered(now time.Duration, nonce uint64, a Answer) []Action {
	m.begin(now)
	if !m.ask.on || nonce != m.ask.nonce {
		return m.end()
	}
	m.ask.on = false
	w := &m.witness
	w.heard, w.at, w.seen, w.record = true, m.now, a.Stamp, a.Record
	if a.Renewed {
		m.renewed(m.ask.at)
	}
	p := m.pending
	switch {
	case !p.on:
	case a.Granted && a.Record.Epoch >= m.durable.View.Epoch: // else it has been replaced since
		m.pending, w.reason, m.ask.retry = pending{}, "", 0
		m.store(func(d *NodeState) {
			d.View = a.Record.View()
			if d.Promise != 0 && d.View.Epoch >= d.Promise {
				d.Promise = 0
			}
		})
		m.granted(p.why)
		return m.end()
	default:
		m.pending, w.reason = pending{}, a.Reason
		if a.Void || a.Wait > 0 {
			w.reason = "" // it is asked again: no refusal yet
		}
		if !a.Void {
			m.ask.retry = m.now + max(a.Wait, m.set.Heartbeat)
		}
	}
	m.learn(a.Record.View(), 0)
	return m.end()
}

// granted: the change is durable where it has to be, and here.
func (m *Machine) granted(p purpose) {
	epoch := m.durable.View.Epoch
	if !m.inOffice() && (p == forAlone || p == forPair || p == forDisk || p == forClaim && m.role == leaving) {
		return // it came too late: the record decides what follows
	}
	switch p {
	case forAlone:
		m.becomeAlone(epoch, "the peer is lost")
	case forClaim:
		m.dropHeld()
		m.risk = false
		if m.role == idle {
			m.win(RightAlone, epoch, "written in by the promise")
			return
		}
		m.becomeAlone(epoch, "written in by the promise")
	case forPair:
		m.right, m.term, m.teach = RightPair, epoch, 0
	case forDisk:
		m.dropHeld()
		m.remote, m.right, m.term = true, RightPair, epoch
		m.do(Action{Do: DoNames})
	case forGive, forHandover:
		m.dropHeld()
		m.handedAway()
	case forResume, forTakeover, forPrim, forForce:
		m.dropHeld()
		m.win(RightAlone, epoch, "granted: "+p.String())
	}
}

// inOffice: this node serves, and goes on until the application is down.
func (m *Machine) inOffice() bool {
	return m.role == promoting || m.role == serving || m.role == leaving && m.going.downing && !m.going.demoting
}

// dropHeld ends a promise of the peer, which learns it by Disowned.
func (m *Machine) dropHeld() {
	m.store(func(d *NodeState) {
		d.Disowned, d.Held = max(d.Disowned, d.Held), 0
	})
}

// win: this node has the right to serve, in this epoch or by a promise of this
// number. It begins as soon as the peer cannot be serving any more.
func (m *Machine) win(r Right, term uint64, because string) {
	if m.durable.Wanted == WantStop || m.going.why == quitting {
		return // told to stop while it asked
	}
	m.won, m.right, m.term, m.teach, m.unused, m.remote, m.risk, m.because = true, r, term, 0, 0, false, false, because
	m.event("epoch", "", fmt.Sprint(term), because)
}
