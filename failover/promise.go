// SPDX-License-Identifier: Apache-2.0

package failover

// Promises (rule 19): a durable word not to serve, which lets the other go on
// alone when neither reaches the witness. A promise has a number above every
// epoch that either node knows or has asked for. It ends when the record has
// reached the number, or by the other's word that it does not hold it.

// hearPromise takes what the peer says of promises, its own and this node's.
func (m *Machine) hearPromise(b *Beat) {
	d := &m.durable
	if d.Promise != 0 && b.Disowned >= d.Promise {
		m.store(func(d *NodeState) { d.Promise = 0 })
		m.offer, m.refused = false, m.now
		m.event("promise", "bound", "free", m.set.Peer+" does not hold the promise")
	}
	if n := b.Promise; n > d.Disowned && n > d.Held {
		m.take(n, b.Offer)
	}
}

// take decides on a promise that is new here: a primary in a lower epoch takes
// it, and so does a node to which it hands the service over. Whoever does not
// take it says so durably, which frees the peer: a lost message binds nobody.
func (m *Machine) take(n uint64, offer bool) {
	serves := m.role == serving || m.role == promoting
	switch {
	case serves && m.term < n && !m.remote:
		m.store(func(d *NodeState) { d.Held = n })
		if m.right == RightPair {
			m.unused = n
		}
		m.event("promise", "", "held", m.set.Peer+" has promised not to serve")
	case offer && m.mayAccept(n):
		m.store(func(d *NodeState) { d.Held = n })
		m.win(RightAlone, n, m.set.Peer+" has promised not to serve")
		m.event("promise", "", "held", m.set.Peer+" hands the service over by a promise")
	case mutated("who does not hold a promise says so"):
	default:
		m.store(func(d *NodeState) { d.Disowned, d.Known = n, max(d.Known, n) })
	}
}

// free: this idle node has nothing under way, and is bound by nothing.
func (m *Machine) free() bool {
	d := &m.durable
	return m.role == idle && !m.won && !m.pending.on && !m.going.handover && m.going.why != quitting &&
		d.Wanted == WantStart && d.Promise == 0 && d.Held == 0
}

// mayAccept reports whether this node may begin to serve by an offered promise.
func (m *Machine) mayAccept(n uint64) bool {
	d := &m.durable
	return m.free() && d.View.Epoch < n && m.data.Whole &&
		(m.data.Winner == Same || m.data.Winner == Mine || m.data.Kept)
}

// promise binds this node. Requests of its own that may be under way are void to
// it: as long as it is bound, and below the number, it serves from no record.
func (m *Machine) promise(offer bool, reason string) {
	n := m.next() + 1 // the peer may have asked for the one before
	if mutated("a promise's number is above all that was asked") {
		n = m.durable.View.Epoch + 1
	}
	m.store(func(d *NodeState) { d.Promise = n })
	m.pending, m.won, m.offer, m.bound = pending{}, false, offer, m.now
	m.event("promise", "free", "bound", reason)
}

// shouldPromise: this secondary and the primary both have lost the witness; or,
// where there is none, the primary asks for it. In step or not, a promise takes
// away nothing but what this node may do itself.
func (m *Machine) shouldPromise() bool {
	b := &m.peer.beat
	if m.refused != 0 && m.now-m.refused < m.set.Heartbeat {
		return false // a primary that is about to stop takes none: not again at once
	}
	if m.durable.Promise != 0 || !m.audible() || !b.Serving || m.pending.on || m.durable.View.Epoch > b.View.Epoch || b.Held > m.durable.View.Epoch {
		return false
	}
	if m.set.Arbiter == ByWitness {
		return !m.reachesWitness() && (!b.Witness || mutated("both have lost the witness")) && m.now-m.began >= m.set.Timeout
	}
	return b.Wants
}

// wants: this node would serve alone, and there is nobody but the peer to ask.
func (m *Machine) wants() bool {
	switch {
	case m.set.Arbiter == ByWitness && m.reachesWitness():
		return false
	case m.role == idle:
		return m.set.Arbiter == ByWitness && m.free() && m.mayResume()
	}
	return m.data.Lost && m.right != RightAlone && m.set.Arbiter != ByWitness
}

// shouldOffer: the holder has restarted, neither reaches the witness, and both
// found that its blocks are as good as this node's.
func (m *Machine) shouldOffer() bool {
	b := &m.peer.beat
	return m.durable.Promise == 0 && m.audible() && b.Wants && !b.Serving && m.set.Arbiter == ByWitness &&
		m.now-m.bound >= m.set.Heartbeat && !m.reachesWitness() && m.now-m.began >= m.set.Timeout && m.durable.View.Holder == m.set.Peer &&
		(m.data.Winner == Same || m.data.Winner == Theirs)
}
