// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"hash/maphash"
	"slices"
	"time"
)

// Two worlds are one state when everything that follows from them is the same.
// So times count from now, no further than the longest wait that looks at them,
// and not at all where nothing will look; numbers count by their order, and gaps
// between them no further than anybody adds to them; a process is the present one
// of its node or a former one.
//
// The two nodes are not exchanged: of two equals with marks the first by name is
// the source (rule 22 has to end somewhere), and in every heartbeat alpha speaks
// first. What beta does first is a state of its own.

type canon struct {
	w       *world
	b       []byte
	numbers []uint64 // epochs and promises, in the order of the fields
	sorted  []uint64
	rank    []uint8
}

var hashSeeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}

type fingerprint [2]uint64

func (c *canon) of(w *world, left budget) fingerprint {
	c.w, c.b, c.numbers = w, c.b[:0], c.numbers[:0]
	c.bytes(min(w.linkedFor, max(w.lag+1, foundOut)), left.all, left.faults, left.words, left.writes, left.disks, uint8(w.truth.acked), uint8(w.truth.flushed), uint8(w.truth.seen), uint8(w.truth.given), uint8(w.truth.dropped[0]&^w.nodes[0].engine.applied), uint8(w.truth.dropped[1]&^w.nodes[1].engine.applied))
	c.boot(w.truth.parting)
	c.bools(w.run == 0, w.stall, w.wantFlush, w.truth.forced, w.truth.stopped, w.truth.led)
	for x := range w.lines {
		for y := range w.lines[x] {
			c.bytes(uint8(w.lines[x][y]))
		}
	}
	for i := range w.nodes {
		c.node(i)
	}
	c.record(&w.seat.Record)
	c.past(w.seat.Renewed, w.stamp().At, patience)
	for k := range w.seat.Heard {
		c.bytes(uint8(place(w.seat.Heard[k].Node) + 1))
		c.view(&w.seat.Heard[k].View)
	}
	for _, list := range [][]event{w.queue, w.aside, w.stalled, w.nodes[0].buffer, w.nodes[1].buffer} {
		c.bytes(uint8(len(list)))
		for k := range list {
			c.event(&list[k])
			if k > 0 && list[k].beat != nil && list[k-1].beat != nil { // which overtakes which
				c.bools(list[k].beat.Boot == list[k-1].beat.Boot && list[k].beat.Sent < list[k-1].beat.Sent)
			}
		}
	}
	c.ranks()
	return fingerprint{maphash.Bytes(hashSeeds[0], c.b), maphash.Bytes(hashSeeds[1], c.b)}
}

func (c *canon) bytes(list ...uint8) { c.b = append(c.b, list...) }

func (c *canon) bools(list ...bool) {
	for _, is := range list {
		c.b = append(c.b, flagIf(is, 1))
	}
}

// The waits that begin at a time that is past, in whole heartbeats.
const (
	patience = leaseLast + beatEvery // timeout and margin
	compares = 7 * beatEvery         // twice that
)

// past is how long ago t was, of which no more than long matters.
func (c *canon) past(t, now, long time.Duration) {
	c.b = append(c.b, uint8(max(0, min(now-t, long))/time.Millisecond))
}

// pastIf is a time that matters only if.
func (c *canon) pastIf(matters bool, t, now, long time.Duration) {
	if !matters {
		t = now - long
	}
	c.past(t, now, long)
}

// ahead is how long it is until t: what was due is due.
func (c *canon) ahead(t, now time.Duration) {
	d := max(0, t-now) / time.Millisecond
	if t == Forever {
		d = 120
	}
	c.b = append(c.b, uint8(d))
}

func (c *canon) number(list ...uint64) { c.numbers = append(c.numbers, list...) }

// widestGap is more than anybody adds to a number that he knows.
const widestGap = 4

// ranks writes the numbers, in order, with gaps no wider than matters.
func (c *canon) ranks() {
	c.sorted = append(append(c.sorted[:0], 0), c.numbers...)
	slices.Sort(c.sorted)
	c.sorted = slices.Compact(c.sorted)
	rank := append(c.rank[:0], make([]uint8, len(c.sorted))...)
	c.rank = rank
	for k := 1; k < len(c.sorted); k++ {
		rank[k] = rank[k-1] + uint8(min(widestGap, c.sorted[k]-c.sorted[k-1]))
	}
	for _, n := range c.numbers {
		k, _ := slices.BinarySearch(c.sorted, n)
		c.b = append(c.b, rank[k])
	}
}

func (c *canon) view(v *View) {
	c.number(v.Epoch)
	c.bytes(uint8(v.Mode), uint8(place(v.Holder)+1))
}

func (c *canon) record(r *Record) {
	v := r.View()
	c.view(&v)
}

// boot names a process: that of alpha, of beta, or one that is no more.
func (c *canon) boot(n uint64) {
	switch n {
	case 0:
		c.bytes(0)
	case c.w.nodes[alpha].boot:
		c.bytes(1)
	case c.w.nodes[beta].boot:
		c.bytes(2)
	default:
		c.bytes(3)
	}
}

// stamp is that of an answer, which can be named for a timeout, to the same run.
func (c *canon) stamp(s Stamp) {
	c.pastIf(s.Run == c.w.run, s.At, c.w.stamp().At, leaseLast)
}

// beat is one that the given node hears. Its echo renews a lease, and so does
// the answer to it, for a timeout after it was sent; by then it is only older
// than others.
func (c *canon) beat(b *Beat, i int) {
	c.boot(b.Boot)
	c.past(b.Sent, c.w.local(1-i), leaseLast)
	c.boot(b.EchoBoot)
	c.pastIf(b.EchoBoot == c.w.nodes[i].boot, b.Echo, c.w.local(i), leaseLast)
	c.view(&b.View)
	c.number(b.Known, b.InStep, b.Follows, b.Term, b.Teach, b.Promise, b.Held, b.Disowned)
	c.bools(b.Serving, b.Offer, b.Wants, b.Witness, b.Whole, b.Mirrored, b.Kept, b.Ailing, b.Resting, b.Succeeds, b.Weary)
	c.bytes(uint8(b.Wanted))
}

// heard is the last beat that a machine heard. What it said of epochs is known,
// durably, ever since; of a peer that is silent nothing else is looked at but
// what is asked for in yields, follows and Heard.
func (c *canon) heard(m *Machine, i int) {
	b := m.peer.beat
	b.Known = 0
	if !m.peer.heard || c.w.local(i)-m.peer.at >= leaseLast {
		b = Beat{Boot: b.Boot, Sent: b.Sent, View: b.View, Serving: b.Serving, Term: b.Term, Promise: b.Promise}
	}
	c.beat(&b, i)
}

func (c *canon) request(q *Request) {
	c.bytes(uint8(place(q.From)+1), uint8(place(q.Holder)+1), uint8(q.Mode))
	c.number(q.Replaces, q.RaiseTo, q.Claim)
	c.stamp(q.Seen)
	c.bools(q.Operator, q.Token == c.w.seat.Record.Token)
}

func (c *canon) event(e *event) {
	w, i := c.w, int(e.at)
	c.bytes(uint8(e.kind), e.at, e.write)
	c.boot(e.boot)
	c.bools(e.failed)
	switch {
	case e.beat != nil:
		c.beat(e.beat, i)
		c.bools(e.beat.Boot == w.nodes[i].m.peer.beat.Boot && e.beat.Sent < w.nodes[i].m.peer.beat.Sent)
	case e.query != nil:
		from := place(e.query.From)
		c.bools(e.query.Serving, e.nonce == w.nodes[from].m.ask.nonce)
		c.bytes(uint8(from))
		c.view(&e.query.Knows)
		c.stamp(e.query.Seen)
	case e.request != nil:
		m := &w.nodes[place(e.request.From)].m
		c.bools(e.nonce == m.ask.nonce, e.request.Token == m.pending.q.Token)
		c.request(e.request)
	case e.answer != nil:
		c.bools(e.nonce == w.nodes[i].m.ask.nonce, e.answer.Granted, e.answer.Void, e.answer.Renewed)
		c.record(&e.answer.Record)
		c.stamp(e.answer.Stamp)
		c.bytes(uint8(e.answer.Wait / time.Millisecond))
	case e.kind == evPing:
		c.bools(e.nonce == w.nodes[i].m.ping.nonce)
	case e.kind == evApply, e.kind == evAck:
		c.bools(e.session == w.nodes[i].engine.session)
	}
}

func (c *canon) node(i int) {
	n := &c.w.nodes[i]
	c.bools(n.up, n.frozen)
	c.durable(&n.durable)
	c.engine(i)
	if !n.up {
		return
	}
	c.past(n.since, c.w.now, foundOut*beatEvery)
	m, now := &n.m, c.w.local(i)
	c.seen(&n.saw)
	c.seen(&m.data)
	c.bytes(uint8(m.role), uint8(m.right), uint8(m.told.right), uint8(m.going.why), uint8(m.application.state), uint8(m.ping.why), uint8(m.fence.why), uint8(m.pending.why))
	c.bools(m.won, m.succeeds, m.relapse.again, m.force != "", m.risk, m.remote, m.hidden, m.offer, m.going.all, m.going.handover, m.going.downing, m.going.demoting,
		m.application.ailing, m.connected, m.sources, m.unused != 0 && m.unused == m.durable.Held, m.everywhere, m.parted == 0, m.peer.heard, m.ask.on, m.ask.nonce == 0, m.pending.on, m.ping.on, m.ping.good, m.fence.on)
	c.number(m.term, m.teach)
	c.times(m, now)
	c.heard(m, i)
	c.stamp(m.witness.seen)
	if now-m.witness.at < leaseLast && m.witness.heard { // nobody looks at older news
		c.record(&m.witness.record)
	}
	if m.pending.on {
		c.request(&m.pending.q)
	}
}

// times are those of a machine.
func (c *canon) times(m *Machine, now time.Duration) {
	audible := m.peer.heard && now-m.peer.at < leaseLast
	c.ahead(m.lease, now)
	c.ahead(m.told.until, now)
	c.ahead(m.ask.retry, now)
	c.ahead(m.fence.wait, now)
	c.past(m.answered, now, patience)
	c.pastIf(audible || m.peer.at > m.answered, m.peer.at, now, patience)
	c.pastIf(!audible && m.peer.at > m.began, m.peer.at, now, compares)
	c.past(m.began, now, compares)
	c.pastIf(audible && m.peer.since > m.began, m.peer.since, now, compares) // the later one counts
	c.past(m.bound, now, 2*beatEvery)
	c.pastIf(m.refused != 0, m.refused, now, beatEvery)
	c.pastIf(m.parted != 0, m.parted, now, leaseLast)
	c.pastIf(m.going.downing && m.going.down != 0, m.going.down, now, patience)
	c.pastIf(m.witness.heard, m.witness.at, now, leaseLast)
	c.pastIf(m.pending.on, m.pending.named, now, patience)
	if m.ask.on { // the answer renews the lease from then
		c.past(m.ask.at, now, leaseLast)
	} else {
		c.past(m.ask.at, now, beatEvery)
	}
	c.pastIf(m.ping.on, m.ping.at, now, leaseLast)
	c.pastIf(m.relapse.at != 0, m.relapse.at, now, relapseWithin*leaseLast)
}

func (c *canon) durable(d *NodeState) {
	c.view(&d.View)
	c.number(d.Known, d.InStep, d.Promise, d.Held, d.Disowned)
	c.bytes(uint8(d.Wanted))
	c.bools(d.Maintenance)
}

func (c *canon) seen(d *Data) {
	c.bools(d.Whole, d.New, d.Mirrored, d.Kept, d.Meeting, d.Lost, d.Lone, d.Failed, d.Stuck)
	c.bytes(uint8(d.Winner))
}

func (c *canon) engine(i int) {
	e, p := &c.w.nodes[i].engine, &c.w.nodes[1-i].engine
	c.bytes(uint8(e.applied), uint8(e.durable), uint8(e.marks), uint8(e.state), uint8(e.right), uint8(e.taken), uint8(e.view), e.quiet, uint8(e.winner), uint8(e.waiting), uint8(e.flight), uint8(e.peerHas))
	c.bools(e.gen == p.gen, e.base != 0, e.ancestors&(1<<p.gen) != 0)
	c.bools(e.failed, e.asked, e.dead, e.equal == c.w.nodes[1-i].boot, e.last, e.primary, e.connects, e.session != 0, e.session == p.session, e.kept, e.named, e.sources, e.waited, e.flushed, e.passes, e.retry > c.w.now)
	c.ahead(e.until, c.w.local(i))
	if e.view == greeting {
		h := &c.w.session.hellos[i]
		v := c.w.session.decide()
		c.bytes(uint8(v.do), uint8(v.source))
		c.bools(h.state == e.state, h.gen == e.gen, h.failed, h.marks, h.primary, h.kept, h.holder, h.last_, h.number < c.w.session.hellos[1-i].number)
	}
}
