// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/klauspost/compress/s2"

	"github.com/twinbd/twinbd/internal/block"
)

// follower carries out what the other node sends: records, flushes, copies of
// a resync, checksums. Answers that are ready together leave in one frame, and
// wait for nothing more. Overlapping changes never meet here: the sender holds
// the range lock of each until we have answered (rule 7).
type follower struct {
	engine *Engine
	tasks  int    // given to the disk and not come back, of any session (rule 14)
	bulk   int    // of these, copies and checksums: they have memory of their own
	term   uint64 // raised when a session ends: answers of an older one are dropped

	acks []ackRange // ready to be sent

	syncing     bool
	flushes     []uint64 // sequences of flush frames that wait for a sync
	copies      []uint64 // ids of copies that are written and wait for a sync
	syncFlushes []uint64 // what the sync under way covers
	syncCopies  []uint64
	sync        block.Task
	syncTerm    uint64

	free *followTask
}

// followTask is one disk task for the peer.
type followTask struct {
	follower *follower
	task     block.Task
	term     uint64
	what     frameType // frameBatch, frameCopy, frameSum
	sequence uint64
	hold     block.Hold
	buffer   []byte // own memory, for copies and checksums
	next     *followTask
}

func (w *follower) newTask(what frameType, sequence uint64) *followTask {
	t := w.free
	if t == nil {
		t = &followTask{follower: w}
	} else {
		w.free = t.next
	}
	t.term, t.what, t.sequence, t.hold, t.next = w.term, what, sequence, block.Hold{}, nil
	return t
}

// Bounds on what a peer may ask for at once (rule 15): it has one flush under
// way, and no more runs than idleRuns and sumRuns.
const (
	maxFlushes = 4
	maxBulk    = idleRuns + sumRuns
)

func (w *follower) give(t *followTask) {
	t.task.Engine = t
	w.tasks++
	if t.what != frameBatch {
		w.bulk++
	}
	w.engine.do(&t.task)
}

func (w *follower) put(t *followTask) {
	t.hold.Release()
	t.hold, t.task.Data = block.Hold{}, nil
	t.next, w.free = w.free, t
}

// busy reports whether a disk task of an earlier session is under way.
func (w *follower) busy() bool { return w.tasks > 0 || w.syncing }

// forget drops the answers of the session that ended. What was given to the
// disk goes on; the next session waits for it.
func (w *follower) forget() {
	w.term++
	w.acks, w.flushes, w.copies = w.acks[:0], w.flushes[:0], w.copies[:0]
}

// takes reports whether the peer may send changes and flushes now.
func (w *follower) takes() bool {
	e := w.engine
	if e.session.state == Hosting {
		return e.remote.hosts
	}
	return e.session.replicates() && !e.resync.leads() && e.mayFollow()
}

// batch takes a run of records and gives each to the disk.
func (w *follower) batch(f *Frame) error {
	e := w.engine
	if !w.takes() {
		return errSequence
	}
	e.moments.due = true
	p := f.Payload
	for i := uint32(0); i < f.Count; i++ {
		if len(p) < block.RecordHeader {
			return errPayload
		}
		r, ok := block.ParseRecord(p)
		n := block.RecordHeader
		if ok && r.Op == block.Write {
			n += int(r.Length)
		}
		if !ok || len(p) < n || !e.acceptable(r) {
			return fmt.Errorf("record %d: %w", i, errPayload)
		}
		record := p[:n:n]
		p = p[n:]
		if e.session.state == Hosting {
			e.remote.carryOut(e, f, r, record, f.Sequence+uint64(i))
			continue
		}
		t := w.newTask(frameBatch, f.Sequence+uint64(i))
		t.hold = f.keep()
		t.task = block.Task{
			Op: r.Op, Offset: int64(r.Offset), Length: int64(r.Length), Data: record[block.RecordHeader:],
			Punch: e.cfg.Punch && r.Flags&block.NoHole == 0,
		}
		if mutated("the peer acknowledges what its disk has") {
			w.ack(t.sequence, block.OK)
			t.term--
		}
		w.give(t)
	}
	if len(p) != 0 {
		return errPayload
	}
	return nil
}

// acceptable checks a record of the peer against the volume.
func (e *Engine) acceptable(r block.Record) bool {
	size := uint64(e.size)
	return r.Op.Changes() && r.Length > 0 && r.Offset <= size && uint64(r.Length) <= size-r.Offset &&
		(r.Op != block.Write || r.Length <= block.MaxLength)
}

func (t *followTask) finished(k *block.Task) {
	w := t.follower
	e := w.engine
	w.tasks--
	if t.what != frameBatch {
		w.bulk--
	}
	status := block.StatusOf(k.Err)
	if k.Err != nil && t.what != frameSum {
		e.localFailed(k.Op.String(), k.Err)
	}
	if t.term == w.term {
		switch t.what {
		case frameBatch:
			w.ack(t.sequence, status)
		case frameCopy:
			w.copied(t.sequence, status)
		case frameSum:
			w.summed(t, status)
		}
	}
	w.put(t)
}

func (w *follower) ack(sequence uint64, s block.Status) {
	if n := len(w.acks); n > 0 {
		last := &w.acks[n-1]
		if last.first+uint64(last.count) == sequence && last.status == s {
			last.count++
			return
		}
	}
	w.acks = append(w.acks, ackRange{sequence, 1, s})
}

// compose puts the acknowledgements that are ready into one frame. It is called
// when the link is about to send, so that all of a turn leave together.
func (w *follower) compose() {
	if len(w.acks) == 0 {
		return
	}
	s := &w.engine.session
	b := s.data.room(frameHeader + len(w.acks)*ackRangeSize)
	for i, r := range w.acks {
		putAckRange(b[frameHeader+i*ackRangeSize:], r)
	}
	sealFrame(b, &Frame{Type: frameAck, Session: s.id, Count: uint32(len(w.acks))})
	w.acks = w.acks[:0]
}

// flush takes the primary's request to make durable what was taken (rule 3).
// Everything that it has seen acknowledged was taken by the disk before.
func (w *follower) flush(f *Frame) error {
	e := w.engine
	if !w.takes() {
		return errSequence
	}
	if e.session.state == Hosting {
		e.remote.flushFor(e, f.Sequence)
		return nil
	}
	if len(w.flushes) == maxFlushes {
		return errSwamped
	}
	w.flushes = append(w.flushes, f.Sequence)
	return nil
}

// copiesPerSync is how many copies wait for one sync while more are coming.
const copiesPerSync = 16

// startSync begins one fdatasync for all who wait, unless one is under way.
// Copies wait for company while others are being written.
func (w *follower) startSync() {
	if mutated("a flush is durable at the peer") {
		for _, sequence := range w.flushes {
			w.engine.session.data.push(&Frame{Type: frameFlushAck, Session: w.engine.session.id, Sequence: sequence}, nil)
		}
		w.flushes = w.flushes[:0]
	}
	due := len(w.flushes) > 0 || len(w.copies) >= copiesPerSync || len(w.copies) > 0 && w.tasks == 0
	if w.syncing || !due || w.engine.local == diskFailed {
		return
	}
	w.syncing, w.syncTerm = true, w.term
	w.flushes, w.syncFlushes = w.syncFlushes[:0], w.flushes
	w.copies, w.syncCopies = w.syncCopies[:0], w.copies
	w.sync = block.Task{Op: block.Flush, Engine: (*followSync)(w)}
	w.engine.do(&w.sync)
}

// followSync is the follower as the owner of its sync.
type followSync follower

func (s *followSync) finished(k *block.Task) {
	w := (*follower)(s)
	e := w.engine
	w.syncing = false
	if k.Err != nil && mutated("a failed flush at the peer is a failed disk") {
		k.Err = nil
	}
	if k.Err != nil {
		e.localFailed("flush", k.Err)
	}
	if w.syncTerm == w.term {
		status := block.StatusOf(k.Err)
		for _, sequence := range w.syncFlushes {
			e.session.data.push(&Frame{Type: frameFlushAck, Session: e.session.id, Sequence: sequence, Count: uint32(status)}, nil)
		}
		w.sendCopied(w.syncCopies, status)
	}
}

// copy writes one run of a resync. The payload begins with the first block.
func (w *follower) copy(f *Frame) error {
	e := w.engine
	switch {
	case e.session.state != Resyncing || e.resync.source:
		return errSequence
	case w.bulk >= maxBulk || len(w.copies) >= maxBulk:
		return errSwamped
	case len(f.Payload) < 8:
		return errPayload
	}
	first, count := int64(binary.BigEndian.Uint64(f.Payload)), int64(f.Count)
	if count == 0 || count > maxCopyBlocks || first < 0 || first > e.dirty.Blocks()-count {
		return errPayload
	}
	offset, length := first*block.Size, min(count*block.Size, e.size-first*block.Size)
	t := w.newTask(frameCopy, f.Sequence)
	t.task = block.Task{Op: block.Write, Offset: offset, Length: length, Drop: true}
	body := f.Payload[8:]
	switch {
	case f.Flags&flagZero != 0:
		t.task.Op, t.task.Punch = block.WriteZeroes, e.cfg.Punch
	case f.Flags&flagPacked != 0:
		if n, err := s2.DecodedLen(body); err != nil || int64(n) != length {
			return errPayload
		}
		if cap(t.buffer) < int(length) {
			t.buffer = make([]byte, maxCopyBlocks*block.Size)
		}
		b, err := s2.Decode(t.buffer[:cap(t.buffer)], body)
		if err != nil {
			return errPayload
		}
		t.task.Data = b
	case int64(len(body)) != length:
		return errPayload
	default:
		t.task.Data, t.hold = body, f.keep()
	}
	e.moments.due = true
	w.give(t)
	return nil
}

func (w *follower) copied(id uint64, s block.Status) {
	if s != block.OK || mutated("a mark goes when its copy is durable") {
		w.sendCopied([]uint64{id}, s)
		return
	}
	w.copies = append(w.copies, id)
}

// sendCopied tells the source which copies are durable.
func (w *follower) sendCopied(ids []uint64, s block.Status) {
	if len(ids) == 0 {
		return
	}
	b := w.engine.session.bulk.room(frameHeader + 8*len(ids))
	for i, id := range ids {
		binary.BigEndian.PutUint64(b[frameHeader+8*i:], id)
	}
	f := Frame{Type: frameCopyAck, Session: w.engine.session.id, Count: uint32(s)}
	sealFrame(b, &f)
}

// sum reads a run for the peer's verify.
func (w *follower) sum(f *Frame) error {
	e := w.engine
	switch {
	case e.session.state != Mirroring || len(f.Payload) != 8:
		return errSequence
	case w.bulk >= maxBulk:
		return errSwamped
	}
	first, count := int64(binary.BigEndian.Uint64(f.Payload)), int64(f.Count)
	if count == 0 || count > maxSumBlocks || first < 0 || first > e.dirty.Blocks()-count {
		return errPayload
	}
	t := w.newTask(frameSum, f.Sequence)
	length := min(count*block.Size, e.size-first*block.Size)
	if cap(t.buffer) < int(length) {
		t.buffer = make([]byte, maxCopyBlocks*block.Size)
	}
	t.task = block.Task{Op: block.Read, Offset: first * block.Size, Length: length, Data: t.buffer[:length], Drop: true}
	w.give(t)
	return nil
}

func (w *follower) summed(t *followTask, s block.Status) {
	f := Frame{Type: frameSumReply, Session: w.engine.session.id, Sequence: t.sequence, Count: uint32(s)}
	var sums []byte
	if s == block.OK {
		if t.task.Zeroes {
			clear(t.task.Data)
		}
		sums = appendSums(nil, t.task.Data)
	}
	w.engine.session.bulk.pushCopy(&f, sums)
}

// sumSize is the length in bytes of one block's checksum: a truncated SHA-256,
// so that no accident makes two different blocks look alike.
const sumSize = 16

func appendSums(dst, data []byte) []byte {
	for len(data) > 0 {
		n := min(block.Size, len(data))
		sum := sha256.Sum256(data[:n])
		dst = append(dst, sum[:sumSize]...)
		data = data[n:]
	}
	return dst
}
