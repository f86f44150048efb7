// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"encoding/binary"
	"time"

	"github.com/twinbd/twinbd/internal/block"
)

// client is an application on one connection to a volume, wherever that is served.
type client struct {
	ledger  *ledger
	session *session // nil: not connected
}

// session is a client's connection.
type session struct {
	client *client
	volume *volume
	open   int        // requests without an answer
	out    []*request // answered by the engine, and not allowed to leave yet
	gone   bool       // nothing passes any more
	refuse bool       // the volume is not served here any more: what comes is refused
}

// request is one request of a client, and the memory that its connection has for
// it.
type request struct {
	block.Request
	session *session
	version uint64
	acks    uint64 // clock of acknowledgements when it was made
	at      time.Duration
	memory  []byte
	read    []uint64 // Read: the version of each sector, as it was answered
	lone    bool     // a change that the peer lacks
	doubt   bool     // a change that is gone already
}

// impossible is the version of a sector that reads as it must not.
const impossible = ^uint64(0)

// act lets a client do something, now and then.
func (c *client) act() {
	w := c.ledger.world
	w.after(between(w.clients, 50*time.Microsecond, w.plan.pace), c.act)
	if w.calm || w.opt.Ops > 0 && w.stats.Ops >= w.opt.Ops {
		return
	}
	s := c.session
	if s == nil || s.gone || s.refuse {
		c.connect()
		return
	}
	if s.open > 24 || s.volume.process.frozen || s.volume.hanging {
		return
	}
	var b block.Batch
	for range 1 + w.clients.IntN(6) {
		b.Requests = append(b.Requests, &c.request().Request)
	}
	v := s.volume
	v.engine.Submit(v.process.node.clock(), &b)
	v.dispatch()
}

// connect finds a node that lets clients in.
func (c *client) connect() {
	w := c.ledger.world
	first := w.clients.IntN(2)
	for _, i := range [...]int{first, 1 - first} {
		p := w.nodes[i].process
		if p == nil || p.frozen {
			continue
		}
		if v := p.volumes[c.ledger.id]; v.status.Primary && !v.hanging {
			c.session = &session{client: c, volume: v}
			v.sessions = append(v.sessions, c.session)
			return
		}
	}
}

func (c *client) request() *request {
	l, w := c.ledger, c.ledger.world
	rng := w.clients
	r := &request{session: c.session, acks: l.acks, at: w.now}
	r.Owner = r
	r.session.open++
	w.stats.Ops++
	first := rng.IntN(l.sectors)
	if rng.IntN(2) == 0 {
		first = rng.IntN(5 * perBlock) // where they overlap
	}
	count := 1 + rng.IntN(min(8, l.sectors-first))
	if rng.IntN(16) == 0 {
		count = 1 + rng.IntN(min(160, l.sectors-first))
	}
	r.Offset, r.Length = int64(first)*sector, int64(count)*sector
	r.version = uint64(w.stats.Ops)
	switch k := rng.IntN(40); {
	case k < 20:
		r.Op = block.Write
	case k < 22:
		r.Op = block.WriteZeroes
	case k < 24:
		r.Op = block.Trim
	case k < 35:
		r.Op, r.Data = block.Read, make([]byte, r.Length)
	case k < 38:
		r.Op, r.Offset, r.Length = block.Flush, 0, 0
	case k < 39:
		r.Op = block.Cache
	default:
		r.Op, r.Contexts = block.BlockStatus, block.ContextDirty|block.ContextAllocation
		r.Extents = [2][]block.Extent{make([]block.Extent, 0, 4), make([]block.Extent, 0, 4)}
	}
	if r.Op.Changes() {
		r.prepare(rng.IntN(8) == 0)
	}
	return r
}

// prepare makes the bytes of a change, and enters it in the ledger.
func (r *request) prepare(fua bool) {
	l := r.session.client.ledger
	n := 0
	if r.Op == block.Write {
		n = int(r.Length)
	} else {
		l.zeroes[r.version] = true
	}
	if fua {
		r.Flags = block.FUA
	}
	r.memory = make([]byte, block.RecordHeader+n)
	r.Record = r.memory
	block.PutRecord(r.Record, r.Op, r.Flags, 0, r.Offset, r.Length)
	if r.Op == block.Write {
		r.Data = r.Record[block.RecordHeader:]
		for i := 0; i < n; i += 8 {
			binary.BigEndian.PutUint64(r.Data[i:], r.version)
		}
	}
	for s := r.first(); s < r.end(); s++ {
		l.begin(s, r.version, r.Op != block.Write)
	}
}

func (r *request) first() int { return int(r.Offset / sector) }
func (r *request) end() int   { return int((r.Offset + r.Length) / sector) }

// Complete implements block.Owner: the engine has answered. What was promised
// must hold now; whether the client hears of it is another matter.
func (r *request) Complete(*block.Request) {
	s := r.session
	l := s.client.ledger
	if r.Owner == nil {
		l.world.fail("%s completed twice", r.Op)
	}
	r.Owner = nil
	if r.Status == block.OK {
		r.promised()
	}
	for i := range r.memory {
		r.memory[i] = 0xdb // the next request comes into it: who still looks is found out
	}
	switch {
	case s.gone:
	case !s.volume.mayReply():
		s.out = append(s.out, r)
	default:
		r.leave()
	}
}

// leave: the client has its answer.
func (r *request) leave() {
	s := r.session
	l := s.client.ledger
	w := l.world
	s.open--
	w.note("reply", int64(r.version), int64(r.Status))
	if r.Status != block.OK {
		w.stats.Refused++
		return // it may have been carried out, or may be later
	}
	w.fence(r)
	switch {
	case r.Op == block.Read:
		r.heard()
	case r.Op == block.Flush:
		l.flushedUpTo(r.acks)
	case r.Op.Changes():
		for s := r.first(); s < r.end(); s++ {
			l.pin(s, r.version)
			if r.Flags&block.FUA != 0 {
				l.flush(s, r.version)
			}
		}
		if r.doubt {
			l.mayLose()
		}
	}
}

// heard: a client has read something. An answer that waited for its leave was
// true when it was read: what has been overwritten since tells nothing. One that was
// not true must not have left.
func (r *request) heard() {
	l := r.session.client.ledger
	where := "read at " + r.session.volume.process.node.name
	for i, v := range r.read {
		s := r.first() + i
		if v != impossible {
			l.pin(s, v)
			continue
		}
		l.observe(s, binary.BigEndian.Uint64(r.Data[i*sector:]), where)
	}
}

// flushedUpTo: a flush is acknowledged that was asked for when so many
// acknowledgements had been given.
func (l *ledger) flushedUpTo(acks uint64) {
	for _, s := range l.unflush {
		if v := l.ackedBy(s, acks); v > 0 {
			l.flush(s, v)
		}
	}
	l.compact()
}

// ackedBy is the last version of a sector that was acknowledged by then, of those
// that are not known to be durable; 0 for none.
func (l *ledger) ackedBy(s int, acks uint64) (v uint64) {
	for _, k := range l.since[s] {
		if k.at <= acks {
			v = k.version
		}
	}
	return v
}

// kick lets out what may leave now.
func (v *volume) kick() {
	for _, s := range v.sessions {
		for len(s.out) > 0 && v.mayReply() {
			r := s.out[0]
			s.out = s.out[1:]
			r.leave()
		}
	}
}

// broken: the connection has ended; the client never hears of what was open.
func (s *session) broken() {
	s.gone, s.out = true, nil
	if s.client.session == s {
		s.client.session = nil
	}
}

// cutOff ends all clients' connections, with nothing more said.
func (v *volume) cutOff() {
	for _, s := range v.sessions {
		s.broken()
	}
	v.sessions = nil
}

// letGo ends the connections: what could be said was said.
func (v *volume) letGo() {
	v.kick()
	v.cutOff()
}

// expel refuses what comes from now on.
func (v *volume) expel() {
	for _, s := range v.sessions {
		s.refuse = true
	}
}
