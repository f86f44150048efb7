// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"encoding/binary"
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
	reads  map[uint64]*op
	nextID uint64
}

// mode is the mode of a node whose own disk has failed.
func (r *remote) mode(e *Engine) mode {
	switch {
	case r.ready:
		return modeRemote
	case r.failed:
		return modeDead
	}
	return modeFrozen
}

// begin: the local disk has just failed.
func (r *remote) begin(e *Engine) {
	if e.session.state != Mirroring {
		// The peer has no whole copy, or none that we can reach.
		r.failed = e.session.state != Disconnected || e.right == RightAlone
		if r.failed {
			e.becomeDisconnected("no disk is left to serve from")
		}
		return
	}
	e.verify.stop("the local disk failed")
	if !r.asked {
		r.asked = true
		e.cfg.Arbiter.Ask(AskPeer)
	}
}

// RecordNamesPeer tells a primary whose disk has failed that the record names
// the peer, alone: it may be served from (rule 18).
func (e *Engine) RecordNamesPeer(now time.Duration) {
	e.now = now
	r := &e.remote
	r.named = true
	e.right = RightNone
	if e.local == diskFailed && (e.session.state == Mirroring || e.session.state == Hosting) {
		r.leave(e)
	}
	e.settle()
}

// leave tells the peer what our disk may lack: what it has not flushed, and
// what is in flight.
func (r *remote) leave(e *Engine) {
	e.marks.peerLost(e) // the same log, seen from the other side
	for seq := e.window.oldest; seq < e.window.next; seq++ {
		if o := e.window.slots[seq%windowSlots]; o != nil {
			e.marks.dirtied(e, o)
		}
	}
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
		list = binary.BigEndian.AppendUint64(list[:0], uint64(makeExtent(0, min(e.dirty.Blocks(), maxExtentCount))))
		for at := int64(maxExtentCount); at < e.dirty.Blocks(); at += maxExtentCount {
			list = binary.BigEndian.AppendUint64(list, uint64(makeExtent(at, min(maxExtentCount, e.dirty.Blocks()-at))))
		}
	}
	e.session.data.pushCopy(&Frame{Type: frameGone, Session: e.session.id, Count: uint32(len(list) / 8)}, list)
}

// gone: the primary's disk failed and the record names this node. Nothing is
// carried out before the new generation and the marks are durable here.
func (r *remote) gone(e *Engine, f *Frame) error {
	if e.primary || e.local == diskFailed || e.session.state != Mirroring && e.session.state != Hosting {
		return errSequence
	}
	if err := e.markExtents(f.Payload); err != nil {
		return err
	}
	if e.header.Base.IsZero() {
		e.newGeneration()
	}
	e.become(Hosting, "for "+e.cfg.Peer+", whose disk failed")
	e.right = RightAlone
	session := e.session.id
	e.meta.wantPages(func() {
		e.meta.wantHeader(func() {
			if e.session.id == session && e.session.state == Hosting {
				r.hosts = true
				e.session.data.push(&Frame{Type: frameGoneAck, Session: session, Sequence: f.Sequence}, nil)
			}
		})
	})
	e.settle()
	return nil
}

// goneAck: the peer owns the history now, and carries on for us.
func (r *remote) goneAck(e *Engine, f *Frame) error {
	if !r.named || e.local != diskFailed {
		return errSequence
	}
	r.ready, r.reads = true, make(map[uint64]*op)
	e.become(Hosting, "served by the disk of "+e.cfg.Peer)
	e.thaw()
	e.settle()
	return nil
}

// meet: a primary without a disk has found its peer again.
func (r *remote) meet(e *Engine, v Verdict) {
	e.become(Hosting, v.Reason)
	if e.local != diskFailed {
		return
	}
	if r.named {
		r.leave(e)
	} else if !r.asked {
		r.asked = true
		e.cfg.Arbiter.Ask(AskPeer)
	}
}

// lost: the session that served, or was served, has ended.
func (r *remote) lost(e *Engine) {
	if r.hosts {
		r.hosts = false
		e.right = RightNone
		return
	}
	r.ready = false
	for id, o := range r.reads {
		delete(r.reads, id)
		e.frozen.push(o)
	}
}

// read asks the peer for a range. Its lock stays held until the answer.
func (r *remote) read(e *Engine, o *op) {
	r.nextID++
	r.reads[r.nextID] = o
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
	copy(o.data, f.Payload)
	e.answer(o, s)
	e.settle()
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
	e.settle()
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
	o := e.newOp()
	o.follows, o.kind = true, block.Read
	o.offset, o.length, o.data = int64(offset), int64(length), make([]byte, length)
	o.hosted = hosted{sequence: f.Sequence, term: e.follower.term, what: frameRead}
	e.follower.tasks++
	e.begin(o)
	e.settle()
	return nil
}

// answered sends the outcome of a hosted request back.
func (r *remote) answered(e *Engine, o *op, s block.Status) {
	h := o.hosted
	e.follower.tasks--
	h.hold.Release()
	if h.term != e.follower.term {
		e.greet()
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
