// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"github.com/twinbd/twinbd/internal/block"
)

// Serving from the peer's disk. When the primary's disk fails, the peer has
// the only copy. The order (rules 1, 8, 9, 18):
//
//	primary    holds every acknowledgement, asks that the record name the peer
//	arbiter    RecordNamesPeer
//	primary    gone: what my disk may lack, as extents
//	secondary  dirty blocks and a generation of its own, durable; gone-ack
//	primary    acknowledges what was held, and sends reads too
//
// From then on the secondary hosts: it carries each request out by its own
// engine, with its own locks, intents and marks, as a primary that is alone
// would; the primary only passes requests on.
type remote struct {
	named  bool // the record names the peer
	asked  bool
	ready  bool // the peer hosts for us
	hosts  bool // we host for the peer
	failed bool // there is no other copy
	nextID uint64
	reads  map[uint64]*op // sent and not answered
	asking int64          // their bytes
	later  opQueue        // reads that wait until fewer bytes are asked for
	served int64          // bytes of the peer's reads under way, while we host
}

// maxRemoteReads bounds the bytes that reads through the peer keep in its
// memory at once. One more read may begin below it.
const maxRemoteReads = 16 << 20

// mode is the mode of a node whose own disk has failed.
func (r *remote) mode() mode {
	switch {
	case r.failed:
		return modeDead
	case r.ready:
		return modeRemote
	}
	return modeFrozen
}

// begin: the local disk of a primary has just failed. The peer has a whole copy
// unless something was acknowledged alone, or is being copied to it; whether
// it still has it, it says itself when it meets us anew.
func (r *remote) begin(e *Engine) {
	s := e.session.state
	if !e.header.Base.IsZero() || s == Resyncing || s == Comparing {
		r.failed = true
		e.becomeDisconnected("no disk is left to serve from")
		return
	}
	if s != Mirroring {
		e.becomeDisconnected("the local disk failed: " + e.localWhy)
		return
	}
	e.verify.stop("the local disk failed")
	r.ask(e)
}

func (r *remote) ask(e *Engine) {
	if !r.asked {
		r.asked = true
		e.cfg.Arbiter.Ask(AskPeer)
	}
}

// despair: the peer has said that there is nothing to serve from.
func (r *remote) despair(e *Engine) {
	if e.primary && e.local == diskFailed {
		r.failed = true
		e.thaw()
	}
}

// RecordNamesPeer tells a primary whose disk has failed that the record names
// the peer, alone: it may be served from (rule 18).
func (e *Engine) RecordNamesPeer(now time.Duration) {
	e.now = now
	r := &e.remote
	r.named = true
	e.right = RightNone
	if e.local == diskFailed {
		e.recall() // it is not waited for any more
		if s := e.session.state; s == Mirroring || s == Hosting {
			e.become(Hosting, "asks "+e.cfg.Peer+" to serve in its place") // nobody may take the disks for alike
			r.leave(e)
		}
	}
	e.settle()
}

// leave tells the peer what our disk may lack: what it has not flushed, and
// what is in flight. Its intents would say so too, should it come back; but it
// has failed, and is not taken at its word.
func (r *remote) leave(e *Engine) {
	e.marks.peerLost(e) // the same log, seen from the other side
	e.window.each(func(o *op) { e.marks.dirtied(e, o) })
	list := make([]byte, 0, 1<<16)
	for at := int64(0); len(list) < cap(list); {
		first, count, ok := e.dirty.Next(at, maxExtentCount)
		if !ok {
			break
		}
		list = binary.BigEndian.AppendUint64(list, uint64(makeExtent(first, count)))
		at = first + count
	}
	if len(list) == cap(list) { // too scattered to list: everything
		list = list[:0]
		for at := int64(0); at < e.dirty.Blocks(); at += maxExtentCount {
			list = binary.BigEndian.AppendUint64(list, uint64(makeExtent(at, min(maxExtentCount, e.dirty.Blocks()-at))))
		}
	}
	e.session.data.pushCopy(&Frame{Type: frameGone, Session: e.session.id, Count: uint32(len(list) / 8)}, list)
}

// gone: the primary's disk failed and the record names this node. Nothing is
// carried out before the new generation and the marks are durable here.
func (r *remote) gone(e *Engine, f *Frame) error {
	if !e.mayFollow() || r.hosts || e.local == diskFailed || e.session.state != Mirroring && e.session.state != Hosting {
		return errSequence
	}
	if mutated("the host marks what the failed disk may lack") {
		f.Payload = nil
	}
	if err := e.markExtents(f.Payload); err != nil {
		return err
	}
	if e.header.Base.IsZero() && !mutated("a host begins a generation") {
		e.newGeneration()
	}
	e.become(Hosting, "for "+e.cfg.Peer+", whose disk failed")
	e.right = RightAlone
	session, sequence := e.session.id, f.Sequence
	e.meta.wantPages(func() {
		e.meta.wantHeader(func() {
			if e.session.id == session && e.session.state == Hosting {
				r.hosts = true
				e.session.data.push(&Frame{Type: frameGoneAck, Session: session, Sequence: sequence}, nil)
			}
		})
	})
	return nil
}

// goneAck: the peer owns the history now, and carries on for us.
func (r *remote) goneAck(e *Engine, f *Frame) error {
	if !r.named || r.ready || !e.primary || e.local != diskFailed {
		return errSequence
	}
	r.ready, r.reads = true, make(map[uint64]*op)
	e.become(Hosting, "served by the disk of "+e.cfg.Peer)
	e.thaw()
	return nil
}

// meet: a primary without a disk has found its peer again.
func (r *remote) meet(e *Engine, v Verdict) {
	e.become(Hosting, v.Reason)
	switch {
	case e.local != diskFailed:
	case !mutated("a restarted host is not taken for whole") && e.session.equal != 0 && e.session.equal != e.session.received.Incarnation:
		// It may have lost what it acknowledged and had not flushed, and
		// nobody else has it: clients must hear of it.
		r.failed = true
		e.becomeDisconnected(e.cfg.Peer + " has restarted, and may have lost what it had not flushed")
		e.thaw()
	case r.named:
		r.leave(e)
	default:
		r.ask(e)
	}
}

// lost: the session that served, or was served, has ended.
func (r *remote) lost(e *Engine) {
	if r.hosts {
		r.hosts = false
		e.right = RightNone
		e.giveUpUnowed()
		return
	}
	r.ready = false
	for _, id := range slices.Sorted(maps.Keys(r.reads)) {
		e.frozen.push(r.reads[id])
	}
	clear(r.reads)
	r.asking = 0
	later := r.later.take()
	for o := later.pop(); o != nil; o = later.pop() {
		e.frozen.push(o)
	}
}

// read asks the peer for a range. Its lock stays held until the answer.
func (r *remote) read(e *Engine, o *op) {
	if r.asking >= maxRemoteReads {
		r.later.push(o)
		return
	}
	r.nextID++
	r.reads[r.nextID] = o
	r.asking += o.length
	o.started = e.now
	var p [16]byte
	binary.BigEndian.PutUint64(p[:], uint64(o.offset))
	binary.BigEndian.PutUint64(p[8:], uint64(o.length))
	e.session.data.pushCopy(&Frame{Type: frameRead, Session: e.session.id, Sequence: r.nextID}, p[:])
}

func (r *remote) readReply(e *Engine, f *Frame) error {
	o := r.reads[f.Sequence]
	if o == nil {
		return errSequence
	}
	s := block.Status(f.Count)
	if s == block.OK && int64(len(f.Payload)) != o.length {
		return errPayload
	}
	delete(r.reads, f.Sequence)
	r.asking -= o.length
	copy(o.data, f.Payload)
	e.answer(o, s)
	for r.later.length > 0 && r.asking < maxRemoteReads {
		r.read(e, r.later.pop())
	}
	return nil
}

// hosted is the request that a host carries out for its peer; it stands where
// a client's request stands otherwise.
type hosted struct {
	sequence uint64
	term     uint64
	hold     block.Hold
	what     frameType
}

// carryOut is a record of the primary, carried out by this engine.
func (r *remote) carryOut(e *Engine, f *Frame, rec block.Record, record []byte, sequence uint64) {
	o := e.newOp()
	o.follows = true
	o.kind, o.flags, o.offset, o.length = rec.Op, rec.Flags, int64(rec.Offset), int64(rec.Length)
	o.record, o.data = record, record[block.RecordHeader:]
	o.hosted = hosted{sequence, e.follower.term, f.keep(), frameBatch}
	e.follower.tasks++
	e.begin(o)
}

// flushFor is a flush of the primary, of this disk.
func (r *remote) flushFor(e *Engine, sequence uint64) {
	o := e.newOp()
	o.follows, o.kind = true, block.Flush
	o.hosted = hosted{sequence: sequence, term: e.follower.term, what: frameFlush}
	e.follower.tasks++
	e.begin(o)
}

// readFor is a read of the primary.
func (r *remote) readFor(e *Engine, f *Frame) error {
	if !r.hosts || len(f.Payload) != 16 {
		return errSequence
	}
	offset, length := binary.BigEndian.Uint64(f.Payload), binary.BigEndian.Uint64(f.Payload[8:])
	if length == 0 || length > block.MaxLength || offset > uint64(e.size) || length > uint64(e.size)-offset {
		return errPayload
	}
	if r.served >= maxRemoteReads {
		return errSwamped
	}
	r.served += int64(length)
	o := e.newOp()
	o.follows, o.kind = true, block.Read
	o.offset, o.length, o.data = int64(offset), int64(length), make([]byte, length)
	o.hosted = hosted{sequence: f.Sequence, term: e.follower.term, what: frameRead}
	e.follower.tasks++
	e.begin(o)
	return nil
}

// answered sends the outcome of a hosted request back.
func (r *remote) answered(e *Engine, o *op, s block.Status) {
	h := o.hosted
	e.follower.tasks--
	h.hold.Release()
	if h.what == frameRead {
		r.served -= o.length
	}
	if h.term != e.follower.term {
		return
	}
	switch h.what {
	case frameBatch:
		e.follower.ack(h.sequence, s)
	case frameFlush:
		e.session.data.push(&Frame{Type: frameFlushAck, Session: e.session.id, Sequence: h.sequence, Count: uint32(s)}, nil)
	case frameRead:
		payload := o.data
		if s != block.OK {
			payload = nil
		}
		e.session.data.pushCopy(&Frame{Type: frameReadReply, Session: e.session.id, Sequence: h.sequence, Count: uint32(s)}, payload)
	}
}
