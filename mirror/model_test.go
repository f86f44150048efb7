// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"encoding/binary"
	"fmt"

	"github.com/twinbd/twinbd/internal/block"
)

// model is what the client may read, sector by sector. Each write has a
// version. A sector holds its last acknowledged version, or that of a write
// that was begun after it and not acknowledged: such a one may be there or
// not, until somebody has read it.
type model struct {
	pair    *pair
	acked   [sectors]uint64
	maybe   [sectors][]uint64 // begun later than acked
	flushed [sectors]uint64   // acknowledged before an acknowledged flush began
	since   [sectors][]uint64 // begun since flushed, up to acked
	zeroes  map[uint64]bool   // versions that read as zero
}

func newModel(p *pair) *model { return &model{pair: p, zeroes: make(map[uint64]bool)} }

// content is what a sector of version v reads as.
func (m *model) content(v uint64) uint64 {
	if m.zeroes[v] {
		return 0
	}
	return v
}

func (m *model) begin(s int, v uint64) { m.maybe[s] = append(m.maybe[s], v) }

// ack: version v is acknowledged. Versions are numbered in the order of their
// submission, and overlapping writes are carried out in that order: a later
// one that somebody has seen already stays.
func (m *model) ack(s int, v uint64) {
	if v > m.acked[s] {
		m.settle(s, v)
	}
}

// observe checks that version v may be in sector s, and pins it there.
func (m *model) observe(s int, v uint64, where string) {
	if v == m.content(m.acked[s]) {
		return
	}
	for _, w := range m.maybe[s] {
		if m.content(w) == v {
			m.settle(s, w)
			return
		}
	}
	m.pair.fail("%s: sector %d holds version %d; acknowledged %d, possible %v", where, s, v, m.acked[s], m.maybe[s])
}

// settle: sector s holds version v. Earlier ones are overwritten; only a power
// cut can bring them back, until v is flushed.
func (m *model) settle(s int, v uint64) {
	i := 0
	for i < len(m.maybe[s]) && m.maybe[s][i] <= v {
		i++
	}
	m.since[s] = append(m.since[s], m.maybe[s][:i]...)
	m.maybe[s] = append([]uint64(nil), m.maybe[s][i:]...)
	m.acked[s] = v
}

// died: a node lost its process, and with power its caches. Nobody can tell
// one from the other, so a node that restarted counts as one that lost what it
// had not flushed. An acknowledged write may be gone, unless a flush covered
// it, when no node is left that certainly has it and is certainly chosen.
func (m *model) died(n *simNode, power bool) {
	n.kept = false
	n.whole = n.whole && !power
	m.reckon()
}

// reckon finds out whether some node certainly has everything after one has
// lost its process, its power or its disk.
func (m *model) reckon() {
	a, b := m.pair.nodes[0], m.pair.nodes[1]
	holder := m.pair.nodes[m.pair.record.holder]
	switch {
	case a.whole && a.kept || b.whole && b.kept:
	case a.whole && b.whole:
	case m.pair.record.alone && holder.whole:
	default:
		m.mayLose()
	}
}

// mayLose: every version since the last flush may be there or not.
func (m *model) mayLose() {
	for s := range m.acked {
		if len(m.since[s]) == 0 {
			continue
		}
		m.maybe[s] = append(append([]uint64{}, m.since[s]...), m.maybe[s]...)
		m.acked[s], m.since[s] = m.flushed[s], nil
	}
}

// client writes, reads, flushes, trims at whoever serves.
type client struct {
	pair    *pair
	version uint64
	open    map[*clientRequest]bool
	ops     int
	refused int  // answered with an error
	blind   bool // checks no answer
}

type clientRequest struct {
	block.Request
	client  *client
	node    *simNode
	version uint64
	snap    [sectors]uint64 // Flush: acknowledged when it began
	done    bool
	name    string // in a scenario: what was asked for,
	outcome string // what was answered,
	told    bool   // and whether the transcript has it
}

// act submits a batch to the primary.
func (c *client) act() {
	p := c.pair
	if c.open == nil {
		c.open = make(map[*clientRequest]bool)
	}
	if p.calm || len(c.open) > 24 {
		return
	}
	for _, n := range p.nodes {
		if n.engine == nil || !n.engine.Primary() {
			continue
		}
		var b block.Batch
		for i := 1 + p.rng.IntN(4); i > 0; i-- {
			b.Requests = append(b.Requests, &c.request(n).Request)
		}
		n.engine.Submit(p.now, &b)
		n.collect()
		return
	}
}

func (c *client) request(n *simNode) *clientRequest {
	p := c.pair
	r := &clientRequest{client: c, node: n}
	r.Owner = r
	c.open[r] = true
	c.ops++
	first := p.rng.IntN(sectors)
	if p.rng.IntN(2) == 0 {
		first = p.rng.IntN(64) // a hot spot, so that requests overlap
	}
	count := 1 + p.rng.IntN(min(24, sectors-first))
	r.Offset, r.Length = int64(first)*sector, int64(count)*sector
	switch k := p.rng.IntN(22); {
	case k < 11:
		r.Op = block.Write
		if p.rng.IntN(6) == 0 {
			r.Flags = block.FUA
		}
	case k < 12:
		r.Op = block.WriteZeroes
	case k < 13:
		r.Op = block.Trim
	case k < 18:
		r.Op = block.Read
	case k < 20:
		r.Op, r.Offset, r.Length = block.Flush, 0, 0
	case k < 21:
		r.Op = block.Cache
	default:
		r.Op, r.Contexts = block.BlockStatus, block.ContextDirty|block.ContextAllocation
		r.Extents = [2][]block.Extent{make([]block.Extent, 0, 4), make([]block.Extent, 0, 4)}
	}
	c.version++
	r.version = c.version
	switch r.Op {
	case block.WriteZeroes, block.Trim:
		p.model.zeroes[r.version] = true
	case block.Flush:
		r.snap = p.model.acked
	case block.Read:
		r.Data = make([]byte, r.Length)
	case block.Write:
		r.Record = make([]byte, block.RecordHeader+r.Length)
		r.Data = r.Record[block.RecordHeader:]
		for i := 0; i < len(r.Data); i += 8 {
			binary.BigEndian.PutUint64(r.Data[i:], r.version)
		}
	}
	if r.Op.Changes() {
		if r.Record == nil {
			r.Record = make([]byte, block.RecordHeader)
		}
		block.PutRecord(r.Record, r.Op, r.Flags, 0, r.Offset, r.Length)
		r.each(func(s int) { p.model.begin(s, r.version) })
	}
	return r
}

func (r *clientRequest) each(f func(s int)) {
	for s := r.Offset / sector; s < (r.Offset+r.Length)/sector; s++ {
		f(int(s))
	}
}

// Complete checks the answer against the model.
func (r *clientRequest) Complete(*block.Request) {
	c, m := r.client, r.client.pair.model
	if c.blind {
		delete(c.open, r)
		return
	}
	if r.done || !c.open[r] {
		c.pair.fail("%s completed twice", r.Op)
	}
	r.done = true
	if c.pair.strict {
		r.outcome = r.Status.String()
		if r.Op == block.Read && r.Status == block.OK {
			r.outcome = fmt.Sprintf("v=%d", version(r.Data))
		}
	}
	delete(c.open, r)
	defer r.reuse()
	if r.Status != block.OK {
		c.refused++
		return // it may have been carried out, or may be later
	}
	c.pair.fence(r)
	switch {
	case r.Op == block.Cache:
	case r.Op == block.BlockStatus:
		for _, extents := range r.Extents {
			length := int64(0)
			for _, x := range extents {
				length += int64(x.Length)
			}
			if length <= 0 || length > r.Length {
				c.pair.fail("status of %d bytes describes %d", r.Length, length)
			}
		}
	case r.Op == block.Read:
		r.each(func(s int) {
			at := int64(s)*sector - r.Offset
			m.observe(s, version(r.Data[at:at+sector]), "read at "+r.node.name)
		})
	case r.Op == block.Flush:
		for s := range r.snap {
			m.flush(s, r.snap[s])
		}
	default:
		r.each(func(s int) {
			m.ack(s, r.version)
			if r.Flags&block.FUA != 0 {
				m.flush(s, r.version)
			}
		})
	}
}

// reuse spoils the request's memory, as a front end does that receives the next
// request in it: whoever still looks at it is found out.
func (r *clientRequest) reuse() {
	for i := range r.Record {
		r.Record[i] = 0xdb
	}
}

// flush: version v of sector s, and all before it, are durable.
func (m *model) flush(s int, v uint64) {
	i := 0
	for i < len(m.since[s]) && m.since[s][i] <= v {
		i++
	}
	m.since[s] = append([]uint64(nil), m.since[s][i:]...)
	m.flushed[s] = max(m.flushed[s], v)
}

// killed: what was open at a node that died is never answered.
func (c *client) killed(n *simNode) {
	for r := range c.open {
		if r.node == n {
			delete(c.open, r)
		}
	}
}

// reset: the operator has chosen a copy that may lack anything; what it holds
// is what there is.
func (m *model) reset(content []byte) {
	for s := range m.acked {
		v := version(content[s*sector : (s+1)*sector])
		delete(m.zeroes, v)
		m.acked[s], m.flushed[s] = v, v
		m.maybe[s], m.since[s] = nil, nil
	}
}
