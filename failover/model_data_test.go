// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"sync"
	"time"
)

// The abstract data path: of each disk only which of a few writes are on it, and
// which of them would survive a power cut; of the engines only what mirror makes
// of sessions, generations and rights. A resync copies everything at once.

// writes is a set of writes, each to a block of its own.
type writes uint8

type content uint8

const (
	consistent content = iota
	inconsistent
	blank
)

// engine is a node's data path.
type engine struct {
	// On its disk.
	applied   writes
	durable   writes
	marks     writes // intents: what may differ from the peer
	state     content
	failed    bool
	gen, base uint8
	ancestors uint16
	last      bool // was the last primary

	// In its process.
	primary  bool
	right    Right // what lets a reply out, with until: the machine's word, at once
	until    time.Duration
	taken    Right // what it goes on by: the machine's word, when its turn comes
	passes   bool  // by then it was told first that it is alone
	connects bool
	view     view
	session  uint8
	quiet    uint8
	retry    time.Duration
	kept     bool
	winner   Winner
	named    bool   // the record names the peer: served from there
	waited   bool   // resumed after it had waited in vain to compare, for as long as the rules have it wait
	sources  bool   // what the peer lacks is copied to it, though this node does not serve
	equal    uint64 // the peer's process that was last an equal
	asked    bool   // its disk failed, and the record is to name the peer
	dead     bool   // there is no whole copy any more: clients get errors
	flushed  bool   // lost its peer, and flushed for it
	waiting  writes // of clients, held back
	flight   writes // of clients, written and not acknowledged
	peerHas  writes // of those in flight
}

// view is how a node sees the session.
type view uint8

const (
	parted view = iota
	greeting
	source // concluded, waits for the right
	target
	copying
	taking
	mirroring
	remote // served from the peer's disk
	host
)

// session is what both said when they met.
type session struct {
	id     uint8
	hellos [2]hello
}

type hello struct {
	state         content
	failed        bool
	gen           uint8
	ancestors     uint16
	marks         bool
	primary       bool
	kept          bool
	number        uint64
	holder, last_ bool
}

func (e *engine) crash(power bool, dropped *writes) {
	if power {
		*dropped |= e.applied &^ e.durable
		e.applied = e.durable
	}
	*e = engine{
		applied: e.applied, durable: e.durable, marks: e.marks, state: e.state, failed: e.failed,
		gen: e.gen, base: e.base, ancestors: e.ancestors, last: e.last,
	}
}

// data is what a node's volumes say.
func (w *world) data(i int) Data {
	e := &w.nodes[i].engine
	return Data{
		Whole: e.state == consistent && !e.failed, New: e.state == blank,
		Mirrored: e.view == mirroring, Kept: e.kept || e.view == mirroring, Meeting: e.view == greeting, Winner: e.winner,
		Lost:   e.primary && !e.failed && e.taken != RightAlone && e.flushed && e.view != mirroring && e.view != copying,
		Lone:   e.primary && (e.right == RightAlone || e.taken == RightAlone || e.passes),
		Failed: e.primary && e.failed && e.asked && !e.named,
	}
}

// after has the data path go on, and the machines told.
func (w *world) after() {
	for i := range w.nodes {
		if w.acts(i) && w.data(i) != w.nodes[i].saw && !w.due(evSaw, i) {
			w.later(event{kind: evSaw, at: uint8(i), boot: w.nodes[i].boot})
		}
	}
	if !w.stall && !w.due(evData, 0) && w.dataMoves() {
		w.later(event{kind: evData})
	}
}

func (w *world) due(k kind, at int) bool {
	for i := range w.queue {
		if w.queue[i].kind == k && int(w.queue[i].at) == at {
			return true
		}
	}
	return false
}

// trials are worlds to try a step of the data path on.
var trials = sync.Pool{New: func() any { return new(world) }}

// dataMoves reports whether there is a step of the data path that can be done.
func (w *world) dataMoves() bool {
	c := trials.Get().(*world)
	*c = *w
	c.queue, c.trace = w.queue[:len(w.queue):len(w.queue)], nil
	moves := c.dataMove()
	trials.Put(c)
	return moves
}

func (w *world) dataStep() {
	if !w.stall {
		w.dataMove()
	}
}

// dataTick: silence ends a session, and a whole connection lets another begin.
func (w *world) dataTick() {
	w.linkedFor = min(w.linkedFor+1, 8)
	if !w.linked() {
		w.linkedFor = 0
	}
	for i := range w.nodes {
		e := &w.nodes[i].engine
		if !w.acts(i) || e.view == parted {
			continue
		}
		if !w.acts(1-i) || w.lines[1-i][i] == cut || w.lines[i][1-i] == cut || w.nodes[1-i].engine.session != e.session {
			if e.quiet++; e.quiet >= w.quietTicks {
				w.lose(i)
			}
		} else {
			e.quiet = 0
		}
	}
}

// lose ends a session as one node sees it.
func (w *world) lose(i int) {
	e := &w.nodes[i].engine
	if e.view == parted {
		return
	}
	w.say("    %s loses the session", places[i])
	e.kept = e.kept || e.view == mirroring
	if e.winner != Split {
		e.winner = NotMet
	}
	e.view, e.session, e.quiet, e.flushed = parted, 0, 0, false
	e.retry = w.now + 1
}

// linked reports whether the nodes' connection works both ways.
func (w *world) linked() bool {
	return w.acts(alpha) && w.acts(beta) && w.lines[alpha][beta] == open && w.lines[beta][alpha] == open
}

// together reports whether both see one session.
func (w *world) together() bool {
	a, b := &w.nodes[alpha].engine, &w.nodes[beta].engine
	return w.linked() && a.session != 0 && a.session == b.session
}

// dataMove does the first step of the data path that can be done.
func (w *world) dataMove() bool {
	for i := range w.nodes {
		if w.acts(i) && w.move(i) {
			return true
		}
	}
	return w.connect() || w.takeRights()
}

// told gives a right. A data path that stands still takes it when it goes on, and
// what it was told before comes first.
func (e *engine) told(r Right, until time.Duration, stall bool) {
	if stall || e.taken != e.right || e.passes {
		e.passes = e.passes || e.right == RightAlone && e.taken != RightAlone
	} else {
		e.taken = r
	}
	e.right, e.until = r, until
}

// takeRights: a data path that stood still hears of its right last. Nothing says
// that what it does before waits for that.
func (w *world) takeRights() bool {
	took := false
	for i := range w.nodes {
		e := &w.nodes[i].engine
		took = took || e.taken != e.right || e.passes
		if e.taken = e.right; e.passes {
			e.taken, e.passes = RightAlone, false
		}
	}
	return took
}

func (w *world) move(i int) bool {
	n, peer := &w.nodes[i], &w.nodes[1-i]
	e := &n.engine
	switch {
	case e.view != parted && w.linked() && peer.engine.session != e.session: // the peer's end is closed
		w.lose(i)
	case e.view == greeting && w.together():
		w.conclude(i)
	case e.view == source && w.mayCopy(e) && w.together() && peer.engine.view == target && !peer.engine.primary:
		e.view, peer.engine.view = copying, taking
		peer.engine.state, peer.engine.marks, peer.engine.last = inconsistent, 0, false
	case e.view == copying && w.together() && peer.engine.view == taking:
		w.copied(e, &peer.engine)
	case e.view == copying && w.together() && peer.engine.view == mirroring: // its last message
		e.view, e.marks, e.peerHas, e.winner, e.equal = mirroring, 0, e.flight, Same, peer.boot
	case e.primary && !e.failed && !e.flushed && e.view != mirroring && e.view != copying:
		e.flushed, e.durable = true, e.applied
	case e.failed && e.primary && e.named && e.view == mirroring && w.together() && (peer.engine.view == mirroring || peer.engine.view == host):
		w.hosted(i)
	default:
		return w.launch(i) || w.acknowledge(i) || w.wantFlush && w.flush(i)
	}
	return true
}

// mayCopy: a source has the right to be the only copy that counts.
func (w *world) mayCopy(e *engine) bool {
	return e.sources || e.primary && (e.taken == RightAlone || mutated("a resync needs the right to be alone"))
}

// connect begins a session. It waits until nothing of the last one is under way.
func (w *world) connect() bool {
	a, b := &w.nodes[alpha].engine, &w.nodes[beta].engine
	if !w.linked() || w.linkedFor < w.lag || a.view != parted || b.view != parted || !a.connects || !b.connects || max(a.retry, b.retry) > w.now {
		return false
	}
	w.session.id = w.session.id%250 + 1
	for i := range w.nodes {
		n := &w.nodes[i]
		e := &n.engine
		e.view, e.session, e.quiet = greeting, w.session.id, 0
		w.session.hellos[i] = hello{
			state: e.state, failed: e.failed, gen: e.gen, ancestors: e.ancestors, marks: e.marks != 0,
			primary: e.primary, kept: e.kept, last_: e.last,
		}
		w.session.hellos[i].number, w.session.hellos[i].holder = n.durable.Holder(places[i])
	}
	return true
}

// copied: the target has everything, durably, and says so; the source hears of it
// in a step of its own.
func (w *world) copied(from, to *engine) {
	from.durable, from.base = from.applied, 0
	to.applied, to.durable, to.state = from.applied, from.applied, consistent
	to.gen, to.ancestors, to.base, to.marks, to.view, to.winner = from.gen, from.ancestors, 0, 0, mirroring, Same
}

// hosted: the peer owns the history now, and carries requests out.
func (w *world) hosted(i int) {
	e, p := &w.nodes[i].engine, &w.nodes[1-i].engine
	p.kept = p.kept || p.view == mirroring
	e.view, e.winner, p.view, p.winner = remote, Theirs, host, Mine
	if p.base == 0 {
		w.part(p)
	}
}

// part begins a generation that the peer does not have (rule 9).
func (w *world) part(e *engine) {
	w.generations++
	e.base = e.gen
	e.ancestors |= 1 << e.gen
	e.gen = w.generations
}

// launch begins writes that wait.
func (w *world) launch(i int) bool {
	e := &w.nodes[i].engine
	if !e.primary || e.waiting == 0 {
		return false
	}
	replicates := e.view == mirroring || e.view == copying || e.view == remote
	if e.failed && e.view != remote || !e.failed && !replicates && e.taken != RightAlone {
		return false
	}
	for k := range writes(8) {
		bit := writes(1) << k
		if e.waiting&bit == 0 {
			continue
		}
		if !e.failed {
			e.applied |= bit
			e.marks |= bit
		}
		if replicates && w.lines[i][1-i] != cut {
			w.later(event{kind: evApply, at: uint8(1 - i), session: e.session, write: uint8(k)})
		}
	}
	e.flight |= e.waiting
	e.waiting = 0
	return true
}

// dataMessage: a write arrives at the peer, or its word that it has it.
func (w *world) dataMessage(e event) {
	i := int(e.at)
	n := &w.nodes[i].engine
	if n.session != e.session || n.session == 0 {
		return
	}
	bit := writes(1) << e.write
	switch {
	case e.kind == evAck:
		n.peerHas |= bit & n.flight
	case n.primary || n.failed:
	default:
		n.applied |= bit
		if w.lines[i][1-i] != cut {
			w.later(event{kind: evAck, at: uint8(1 - i), session: e.session, write: e.write})
		}
	}
}

// acknowledge answers clients, when that is allowed at this moment.
func (w *world) acknowledge(i int) bool {
	e := &w.nodes[i].engine
	if !e.primary || e.flight == 0 || !w.serves(i) {
		return false
	}
	done := e.flight
	switch {
	case e.view == mirroring, e.view == remote, e.view == copying:
		done &= e.peerHas
	case e.taken != RightAlone:
		return false
	case e.base == 0:
		w.part(e) // durable before the first lone acknowledgement
		return true
	}
	e.flight &^= done
	e.peerHas &^= done
	w.truth.acked |= done
	return done != 0
}

// flush is a client's, of what was acknowledged before.
func (w *world) flush(i int) bool {
	n := &w.nodes[i]
	e, p := &n.engine, &w.nodes[1-i].engine
	both := (e.view == mirroring || e.view == copying || e.view == remote) && w.together()
	switch {
	case !w.serves(i) || e.waiting|e.flight != 0:
		return false
	case both && !e.failed && p.state == consistent:
		e.durable, p.durable = e.applied, p.applied
		if e.view == mirroring {
			e.marks = 0
		}
	case both && e.failed:
		p.durable = p.applied
	case e.taken == RightAlone && !e.failed:
		if e.base == 0 && e.marks != 0 {
			w.part(e)
		}
		e.durable = e.applied
	default:
		return false
	}
	w.truth.flushed |= w.truth.acked &^ w.truth.given
	w.wantFlush = false
	return true
}
