// SPDX-License-Identifier: Apache-2.0

package failover

// What a node does that does not serve: nothing, unless the record, the peer's
// silence or the peer's word makes it begin (rules 16, 19, 22).

func (m *Machine) whileIdle() {
	d := &m.durable
	switch {
	case m.won:
		if m.patient() {
			m.becomePromoting()
		}
	case m.pending.on: // its outcome decides
	case m.going.handover:
		m.handOver()
	case d.Wanted == WantStop || m.going.why == quitting:
		m.partingWord()
	case d.Promise != 0 && !mutated("a bound node serves from nothing"): // serves from nothing until it is free
	case d.Held != 0:
		m.whileHolding()
	case d.View.Holder == m.set.Node:
		m.resume()
	case d.View.Holder == m.set.Peer:
		m.beSecond()
	}
}

// whileHolding: a restarted holder of a promise may do only this: write itself
// in, or the peer whose blocks are newer, which it waits for (rule 22); or go on by the promise while the peer
// says that it is bound by it still.
func (m *Machine) whileHolding() {
	d, b := &m.durable, &m.peer.beat
	switch {
	case d.Held <= d.View.Epoch:
		m.dropHeld()
	case m.data.Meeting:
	case m.peerWins() && m.cutOff():
		if m.met() && m.now-m.began >= m.set.Timeout {
			m.dropHeld() // and gives it by a promise
		}
	case m.peerWins():
		m.seek(forGive)
	case !m.data.Whole:
	case m.unmetSurvivor() && !mutated("a promise's holder that restarted compares first"):
		// It went on alone by the promise, or lost its power before it did.
	case m.fresh() && (m.settled() || mutated("a promise's holder waits for the survivor")):
		m.seek(forClaim)
	case m.audible() && b.EchoBoot == m.boot && b.Promise == d.Held && !b.Serving && m.met():
		m.win(RightAlone, d.Held, m.set.Peer+" has promised not to serve, still")
	}
}

// resume: the record names this node, which does not serve. It has been handed
// the service, or has restarted: then it inherits nothing but what its peer, which
// kept running, gives it (rule 22).
func (m *Machine) resume() {
	switch {
	case mutated("a restarted holder inherits nothing"):
		m.win(RightAlone, m.durable.View.Epoch, "")
	case m.data.Meeting, m.now < m.ask.retry:
	case m.handedOver():
		m.win(RightPair, m.durable.View.Epoch, "handed over by "+m.set.Peer)
	case m.peerWins() && m.catchesUp():
	case m.peerWins() && m.cutOff():
		if m.met() && m.now-m.began >= m.set.Timeout && m.now-m.bound >= m.set.Heartbeat {
			m.promise(true, m.set.Peer+" has the newer data, and the witness is away")
		}
	case m.peerWins(), m.relapses() && !m.cutOff():
		m.seek(forGive)
	case m.set.Arbiter == ByFence && m.mayResume() && m.data.Mirrored && m.peerInStep():
		// Alone is what a fence is asked for: until then both have every write,
		// whoever the other then finds to be the holder.
		m.win(RightPair, m.durable.View.Epoch, "nothing differs, and "+m.set.Peer+" follows")
	case m.mayResume() && m.cutOff() && m.audible() && m.peer.beat.Witness && m.peerInStep():
		if m.met() && m.now-m.began >= m.set.patience()+m.set.Timeout && m.now-m.bound >= m.set.Heartbeat {
			m.promise(true, m.set.Peer+" reaches the witness, and this node does not")
		}
	case m.mayResume():
		m.seek(forResume)
	}
}

// handedOver: the former holder says, durably, that it gave the service to this
// node in the epoch that this node has learned, and follows.
func (m *Machine) handedOver() bool {
	d, b := &m.durable, &m.peer.beat
	return d.View.Mode == Pair && d.View.Epoch == d.InStep && m.audible() && !b.Serving && b.View == d.View &&
		m.data.Mirrored && m.data.Whole && m.data.Kept
}

// peerWins: the peer has what this node may lack: it is newer, or it kept
// running in step while this node restarted. As long as they have not compared
// what they have, it must be certain that the peer lacks nothing, also when
// there is no whole disk here.
func (m *Machine) peerWins() bool {
	b := &m.peer.beat
	if !m.audible() || !b.Whole || b.Serving || mutated("the survivor's blocks win") {
		return false
	}
	if m.met() {
		return m.data.Winner == Theirs && !m.data.Owes // what it lacks is copied to it first
	}
	hasAll := m.peerInStep() && m.durable.Held == 0 // nothing was acknowledged alone
	return (hasAll || mutated("a failed disk is no reason to lose writes") && !m.data.Whole) && (!m.data.Whole || m.outlived() && m.waitedLong())
}

// catchesUp: the peer, which kept running in step, copies what this node may have
// lost (restores, there); then nothing differs, and what runs here goes on where it
// was. A copy that takes longer than a takeover would is not waited for: the peer
// serves meanwhile. Nor does a node keep what it cannot be reached for, or what its
// process dies of again and again.
func (m *Machine) catchesUp() bool {
	b := &m.peer.beat
	weary := b.Weary && b.EchoBoot == m.boot
	return m.outlived() && !m.data.New && !weary && b.Wanted == WantStart &&
		m.now-m.began < m.set.patience() && (!m.data.Detached || b.Detached)
}

// relapses: this node's process has ended twice within a short time, and the peer,
// which kept running and has everything, is to serve.
func (m *Machine) relapses() bool {
	b := &m.peer.beat
	return m.audible() && b.Weary && b.EchoBoot == m.boot && b.Kept && b.Whole && !b.Serving && b.Wanted == WantStart &&
		m.peerInStep() && m.data.Mirrored
}

// peerInStep: the peer has every write that was acknowledged in pair.
func (m *Machine) peerInStep() bool {
	return m.durable.View.Mode == Pair && m.peer.beat.InStep >= m.durable.View.Epoch
}

// outlived: the peer is heard and kept running in step while this node
// restarted, which may have lost what it had not flushed.
func (m *Machine) outlived() bool {
	return m.audible() && (m.peerInStep() || m.outranRecord()) && m.peer.beat.Kept && !m.data.Kept
}

// unmetSurvivor: such a peer may have what was lost here, and nobody has compared.
func (m *Machine) unmetSurvivor() bool { return !m.met() && m.outlived() }

// outranRecord: the peer came to be in step after this node was written in alone. It
// follows by its promise, or has learned the epoch of the pair that was to be next.
func (m *Machine) outranRecord() bool {
	d, b := &m.durable, &m.peer.beat
	return d.Held != 0 && b.Promise == d.Held || d.View.Holder == m.set.Node && d.View.Mode == Alone && b.InStep > d.View.Epoch
}

// met reports whether the nodes have compared what they have.
func (m *Machine) met() bool { return m.data.Winner != NotMet }

// waitedLong: two nodes that hear each other have had the time to connect their
// volumes as well.
func (m *Machine) waitedLong() bool {
	return m.now-max(m.began, m.peer.since) >= 2*m.set.patience()
}

// mayResume: a restarted holder may ask to serve again.
func (m *Machine) mayResume() bool {
	d := &m.durable
	switch {
	case d.View.Holder != m.set.Node || !m.data.Whole || m.data.Winner == Theirs || m.data.Winner == Split:
		return false
	case m.audible() && m.peer.beat.Serving:
		// From the disk here (rule 18), as this node's last process left it:
		// that cannot go on.
		return m.peer.beat.Term == d.View.Epoch && !m.data.Kept && !m.met() && m.settled()
	case d.View.Mode == Alone && m.unmetSurvivor() && !m.succeeds:
		return false
	case m.set.Arbiter == ByWitness, m.audible():
		return m.settled() || d.View.Mode == Alone && mutated("who restarts waits for the survivor")
	}
	// Nobody takes it by himself; but the operator may have given it to the peer,
	// who is heard as soon as both are connected.
	return m.settled() && (d.View.Mode == Alone || m.set.Arbiter == ByNobody)
}

// settled: a process that has just started has given a peer that kept running
// the time to be heard, to compare what both have, and to take over. One that did,
// was heard, and is silent again is given it anew: a few lost beats are no reason to
// do without what it has. A peer that has restarted itself is not waited for twice.
func (m *Machine) settled() bool {
	if m.audible() {
		return m.met() || m.waitedLong()
	}
	if m.succeeds && m.durable.View.Mode == Alone && m.set.Arbiter != ByFence {
		return true // nothing was lost since this node was alone, with everything
	}
	since := m.began
	if m.peer.heard && m.peer.beat.Kept && m.peerInStep() {
		since = max(since, m.peer.at)
	}
	return m.now-since >= m.set.patience()+2*m.set.Heartbeat
}

// beSecond: the record names the peer.
func (m *Machine) beSecond() {
	d := &m.durable
	switch {
	case mutated("the record names who takes a handover") && m.peer.beat.InStep != 0 && m.peer.beat.InStep == d.InStep && !m.peer.beat.Serving && m.audible():
		m.win(RightPair, d.InStep, "")
	case m.shouldPromise():
		m.promise(false, "neither node reaches the witness")
	case m.shouldOffer():
		m.promise(true, m.set.Peer+" was the last to serve, and asks for the word")
	case d.Maintenance || !m.mayTakeOver():
	default:
		m.seek(forTakeover)
	}
}

// mayTakeOver: this node was in step in the record's epoch, and the peer has
// been silent for its timeout (rule 16), or says that it stands still (rule 8). Whether the peer still renews at the
// witness, the witness knows.
func (m *Machine) mayTakeOver() bool {
	d := &m.durable
	inStep := d.View.Mode == Pair && (d.InStep >= d.View.Epoch || mutated("who takes over was in step")) || mutated("nobody takes over from alone")
	if !inStep || !m.data.Whole || m.data.Stuck || m.data.Winner == Theirs && !m.data.Kept ||
		m.audible() && !m.peer.beat.Stuck || m.now-m.answered < m.set.Timeout || m.now-m.began < m.set.Timeout {
		return false
	}
	switch m.set.Arbiter {
	case ByWitness:
		return m.fresh()
	case ByPing, ByFence: // who has just started does neither
		return m.data.Kept && m.now-m.answered >= m.set.patience()
	}
	return false
}

// partingWord: the last word of a stopping secondary is a promise (rule 24), so
// that the primary goes on without a timeout. A node that the record names, and
// that does not serve, gives the service to a peer that has everything.
func (m *Machine) partingWord() {
	switch {
	case m.mayGiveUp():
		m.seek(forGive)
	case m.parted != 0:
	case m.audible() && m.peer.beat.Serving && !mutated("the last word of a secondary is a promise") && m.follows() != 0 && m.durable.Promise == 0:
		m.promise(false, "this node stops")
		m.parted = m.now
	default:
		m.parted = m.now
	}
}

// mayGiveUp: this node held the service in pair to the last, and the peer has
// kept running in step ever since; a promise of that peer's it may have taken, and
// never gone alone by. When both are to stop nobody gives.
func (m *Machine) mayGiveUp() bool {
	d, b := &m.durable, &m.peer.beat
	return !m.everywhere && d.View.Holder == m.set.Node && d.View.Mode == Pair && (d.Held == 0 || d.Held == m.unused) && d.Promise == 0 &&
		m.audible() && m.fresh() && b.Wanted == WantStart && !b.Serving && b.Whole && b.Kept && b.InStep >= d.View.Epoch
}

// connect says whether the volumes may be connected: not at a node that has
// stopped, once the peer has its last word.
func (m *Machine) connect() {
	d, b := &m.durable, &m.peer.beat
	stops := m.role == idle && !m.won && !m.pending.on && (d.Wanted == WantStop || m.going.why == quitting) && m.parted != 0 &&
		(d.Promise == 0 || b.Held >= d.Promise || !m.audible() || m.now-m.parted >= m.set.Timeout)
	if on := !stops; on != m.connected {
		if m.connected = on; on && !mutated("a node that is started again waits as one that restarted") {
			m.began = m.now // from now on the peer can be compared with
		}
		m.do(Action{Do: DoConnect, Off: stops})
	}
}
