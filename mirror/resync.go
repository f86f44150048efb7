// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"github.com/klauspost/compress/s2"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/internal/block"
)

// A resync in the order of its steps (rules 5, 6, 12, 18):
//
//	target  sends its dirty blocks
//	source  adds them to its own; the union is durable before it goes on
//	source  has the right to be the only one: alone
//	source  start: be my target
//	target  durably inconsistent, forgets its own marks; ready
//	both    changes of clients go to both from here on
//	source  for each dirty run: range lock, read, copy
//	target  written and durable; copied
//	source  the bits go, then the lock
//	source  no bit left, and both flushed since: finish
//	target  durably of the source's generation; finished
//	source  the base goes; mirroring
//
// The lock is held from before the read until the target's copy is durable:
// so a change of a client is either in what was read, or comes after it on
// both disks, and no bit goes whose block was written since.
type resync struct {
	engine *Engine
	source bool
	full   bool
	active bool // source: copying
	id     uint64
	needs  bool // the union is there, the right is not

	cursor int64
	nextID uint64
	runs   map[uint64]*copyRun
	reads  int // disk reads under way, of any session
	free   *copyRun
	saved  int64 // blocks cleared since the bits were last saved

	ending bool // waiting for the flush before finish

	progress Progress
	packer   packer
}

// Progress counts a resync or a verify.
type Progress struct {
	Total     int64         // blocks to do when it began
	Done      int64         // blocks done
	SentBytes int64         // payload that went over the link
	Zeroes    int64         // blocks sent as zeroes
	Different int64         // verify: blocks that differ
	Began     time.Duration // on the engine's clock
	Ended     time.Duration // zero while under way
}

const (
	// maxCopyBlocks bounds one run of a resync: 1 MiB.
	maxCopyBlocks = 256

	// idleRuns and busyRuns are how many runs are under way while clients are
	// quiet, and while they wait for answers.
	idleRuns = 16
	busyRuns = 3

	// busyCopyBlocks bounds a run while clients wait: 128 KiB.
	busyCopyBlocks = 32

	// saveEvery is after how many cleared blocks the bits are saved: 64 MiB.
	saveEvery = 16 << 10
)

// startMessage is the payload of frameStart and frameFinish.
type startMessage struct {
	ID         uint64
	VolumeID   [16]byte
	Generation bitmap.Generation
	Count      uint64
	Ancestors  []bitmap.Generation
}

func (r *resync) message() []byte {
	h := &r.engine.header
	b, err := json.Marshal(startMessage{r.id, h.VolumeID, h.Generation, h.Generations, ancestorList(h)})
	if err != nil {
		bug("marshal start: %v", err)
	}
	return b
}

// compare begins a resync that both have concluded.
func (r *resync) compare(v Verdict) {
	e := r.engine
	r.source, r.full = v.Source == e.cfg.Node, v.Action == ActionFull
	r.active, r.ending, r.needs = false, false, false
	if r.source {
		return // the target speaks first
	}
	r.sendDirty()
}

// coarseAbove is the number of dirty blocks above which the target names whole
// regions, so that the message stays small however scattered they are.
const coarseAbove = 1 << 20

// sendDirty tells the source which blocks this node holds for different.
func (r *resync) sendDirty() {
	e := r.engine
	const perFrame = 8192
	list := make([]byte, 0, 8*perFrame)
	flush := func(flags uint8) {
		e.session.data.pushCopy(&Frame{Type: frameDirty, Flags: flags, Session: e.session.id, Count: uint32(len(list) / 8)}, list)
		list = list[:0]
	}
	if !r.full {
		grain := int64(1)
		if e.dirty.Count() > coarseAbove {
			grain = e.meta.layout.RegionSize() / block.Size
		}
		for at := int64(0); ; {
			first, count, ok := e.dirty.Next(at, maxExtentCount)
			if !ok {
				break
			}
			end := min((first+count+grain-1)/grain*grain, e.dirty.Blocks())
			first = first / grain * grain
			list = binary.BigEndian.AppendUint64(list, uint64(makeExtent(first, end-first)))
			at = end
			if len(list) == cap(list) {
				flush(0)
			}
		}
	}
	flush(flagLast)
}

// dirty takes the target's blocks into the union.
func (r *resync) dirty(f *Frame) error {
	e := r.engine
	if e.session.state != Comparing || !r.source || r.needs {
		return errSequence
	}
	if err := e.markExtents(f.Payload); err != nil {
		return err
	}
	if f.Flags&flagLast == 0 {
		return nil
	}
	if r.full {
		e.dirty.Set(0, e.dirty.Blocks())
	}
	r.needs = true
	r.claim()
	e.settle()
	return nil
}

// markExtents makes the blocks of encoded extents dirty.
func (e *Engine) markExtents(p []byte) error {
	if len(p)%8 != 0 {
		return errPayload
	}
	for ; len(p) > 0; p = p[8:] {
		x := extent(binary.BigEndian.Uint64(p))
		if x.count() == 0 || x.first() > e.dirty.Blocks()-x.count() {
			return errPayload
		}
		e.dirty.Set(x.first(), x.count())
	}
	return nil
}

// claim goes on when this node has the right to be the only whole copy (rule
// 18), and asks for it otherwise.
func (r *resync) claim() {
	e := r.engine
	if !r.needs {
		return
	}
	if e.right != RightAlone {
		e.seekAlone()
		return
	}
	r.needs = false
	session := e.session.id
	e.meta.wantPages(func() {
		if e.session.id == session && e.session.state == Comparing {
			r.start()
		}
	})
}

// start: the union is durable here (rule 6).
func (r *resync) start() {
	e := r.engine
	r.id++
	flags := uint8(0)
	if r.full {
		flags = flagFull
	}
	e.session.data.pushCopy(&Frame{Type: frameStart, Flags: flags, Session: e.session.id, Sequence: r.id}, r.message())
}

// started makes this node a target: durably inconsistent before the first
// block (rule 12).
func (r *resync) started(f *Frame) error {
	e := r.engine
	if e.session.state != Comparing || r.source || e.primary {
		return errSequence
	}
	var m startMessage
	if err := json.Unmarshal(f.Payload, &m); err != nil || m.Generation.IsZero() {
		return errPayload
	}
	r.id = m.ID
	h := &e.header
	h.State, h.Intended, h.VolumeID, h.ResyncID, h.LastPrimary = bitmap.Inconsistent, m.Generation, m.VolumeID, m.ID, false
	e.dirty.Clear(0, e.dirty.Blocks())
	e.forgetIntents()
	e.meta.wantPages(nil)
	session := e.session.id
	e.meta.wantHeader(func() {
		if e.session.id == session && e.session.state == Comparing {
			e.become(Resyncing, "target of "+e.cfg.Peer)
			e.session.data.push(&Frame{Type: frameReady, Session: session, Sequence: r.id}, nil)
		}
	})
	e.settle()
	return nil
}

// forgetIntents drops the intents of a node whose marks the source has taken.
func (e *Engine) forgetIntents() {
	var gone []uint32
	e.marks.intents.Each(func(i *bitmap.Entry) bool {
		if i.InFlight == 0 {
			gone = append(gone, i.Region)
		}
		return true
	})
	for _, region := range gone {
		e.marks.intents.Remove(region)
	}
	e.meta.wantIntents()
}

// ready: the target is one, durably. Changes go to both from here on.
func (r *resync) ready(f *Frame) error {
	e := r.engine
	if e.session.state != Comparing || !r.source || f.Sequence != r.id {
		return errSequence
	}
	r.active, r.cursor, r.saved = true, 0, 0
	r.runs = make(map[uint64]*copyRun)
	r.progress = Progress{Total: e.dirty.Count(), Began: e.now}
	e.become(Resyncing, "source for "+e.cfg.Peer)
	e.thaw()
	r.pump()
	e.settle()
	return nil
}

// copyRun is one run of blocks on its way to the target.
type copyRun struct {
	resync       *resync
	lock         lock
	task         block.Task
	id           uint64
	first, count int64
	buffer       []byte // 8 bytes for the first block's number, then the blocks
	sent         bool
	dead         bool // the resync ended while the disk was reading
	next         *copyRun
}

// pump keeps enough runs under way, and ends the resync when none is left.
func (r *resync) pump() {
	e := r.engine
	if !r.active || e.session.state != Resyncing {
		return
	}
	most, blocks := idleRuns, int64(maxCopyBlocks)
	if e.window.count > 0 || e.ops.used > 0 {
		most, blocks = busyRuns, busyCopyBlocks
	}
	for len(r.runs) < most {
		first, count, ok := e.dirty.Next(r.cursor, blocks)
		if !ok {
			if len(r.runs) > 0 {
				return // their bits are still set
			}
			if r.cursor == 0 {
				r.end()
				return
			}
			r.cursor = 0
			continue
		}
		r.cursor = first + count
		r.begin(first, count)
	}
}

func (r *resync) begin(first, count int64) {
	e := r.engine
	c := r.free
	if c == nil {
		c = &copyRun{resync: r, buffer: make([]byte, 8+maxCopyBlocks*block.Size)}
		c.lock.owner = c
	} else {
		r.free = c.next
	}
	r.nextID++
	c.id, c.first, c.count, c.sent, c.dead, c.next = r.nextID, first, count, false, false, nil
	r.runs[c.id] = c
	c.lock.start = first * block.Size
	c.lock.end = min(c.lock.start+count*block.Size, e.size)
	if e.locks.acquire(&c.lock) {
		c.locked()
	}
}

// locked: nobody changes the run; read it.
func (c *copyRun) locked() {
	length := c.lock.end - c.lock.start
	c.task = block.Task{
		Op: block.Read, Offset: c.lock.start, Length: length, Data: c.buffer[8 : 8+length], Drop: true, Engine: c,
	}
	c.resync.reads++
	c.resync.engine.do(&c.task)
}

// finished: the run was read; send it.
func (c *copyRun) finished(t *block.Task) {
	r := c.resync
	e := r.engine
	r.reads--
	switch {
	case c.dead:
		r.put(c)
		e.greet()
		return
	case t.Err != nil:
		// This is the only whole copy: it is not given up for one block.
		c.sent = true // the disk is done with it
		e.becomeDisconnected(fmt.Sprintf("read for resync at byte %d: %v", t.Offset, t.Err))
		return
	}
	f := Frame{Type: frameCopy, Session: e.session.id, Sequence: c.id, Count: uint32(c.count)}
	binary.BigEndian.PutUint64(c.buffer, uint64(c.first))
	payload := c.buffer[:8+t.Length]
	if t.Zeroes || isZero(t.Data) {
		f.Flags, payload = flagZero, c.buffer[:8]
		r.progress.Zeroes += c.count
	} else if e.cfg.Compress && e.has(featureS2) {
		if packed := r.packer.pack(c.buffer[:8], t.Data); packed != nil {
			f.Flags = flagPacked
			r.progress.SentBytes += int64(len(packed))
			c.sent = true
			e.session.bulk.pushCopy(&f, packed)
			return
		}
	}
	r.progress.SentBytes += int64(len(payload))
	c.sent = true
	e.session.bulk.push(&f, payload)
}

// copied: runs are durable at the target; their bits go, then their locks
// (rule 5).
func (r *resync) copied(f *Frame) error {
	e := r.engine
	if !r.active || len(f.Payload)%8 != 0 {
		return errSequence
	}
	if s := block.Status(f.Count); s != block.OK {
		return peerFailed(s)
	}
	for p := f.Payload; len(p) > 0; p = p[8:] {
		c := r.runs[binary.BigEndian.Uint64(p)]
		if c == nil || !c.sent {
			return errSequence
		}
		delete(r.runs, c.id)
		e.dirty.Clear(c.first, c.count)
		r.progress.Done += c.count
		r.saved += c.count
		e.unlock(&c.lock)
		r.put(c)
	}
	if r.saved >= saveEvery {
		r.saved = 0
		e.meta.wantPages(nil)
	}
	r.pump()
	e.settle()
	return nil
}

func (r *resync) put(c *copyRun) {
	c.task.Data = nil
	c.next, r.free = r.free, c
}

// end flushes both disks once more, so that nothing is left that was begun
// before the resync, and then lets the target adopt the generation.
func (r *resync) end() {
	e := r.engine
	if r.ending {
		return
	}
	r.ending = true
	session := e.session.id
	e.rounds.whenDone(e, func() {
		if e.session.id != session || !r.active {
			return
		}
		if r.ending = e.dirty.Count() == 0; !r.ending {
			r.pump()
			return
		}
		e.session.data.pushCopy(&Frame{Type: frameFinish, Session: session, Sequence: r.id}, r.message())
	})
}

// finishing: no block differs. One atomic write makes this node an equal.
func (r *resync) finishing(f *Frame) error {
	e := r.engine
	var m startMessage
	if e.session.state != Resyncing || r.source || f.Sequence != r.id {
		return errSequence
	}
	if err := json.Unmarshal(f.Payload, &m); err != nil || m.Generation.IsZero() {
		return errPayload
	}
	h := &e.header
	h.State, h.Generation, h.Generations = bitmap.Consistent, m.Generation, m.Count
	h.Intended, h.Base = bitmap.Generation{}, bitmap.Generation{}
	h.Ancestors = [bitmap.MaxAncestors]bitmap.Generation{}
	copy(h.Ancestors[:], m.Ancestors)
	session := e.session.id
	e.meta.wantHeader(func() {
		if e.session.id == session && e.session.state == Resyncing {
			e.session.data.push(&Frame{Type: frameFinishAck, Session: session, Sequence: r.id}, nil)
			e.becomeMirroring("resync from " + e.cfg.Peer + " is done")
		}
	})
	e.settle()
	return nil
}

// finished: the target is an equal. If this message is lost the next session
// finds equal generations, and a base that goes then.
func (r *resync) finished(f *Frame) error {
	e := r.engine
	if e.session.state != Resyncing || !r.source || f.Sequence != r.id {
		return errSequence
	}
	r.active = false
	r.progress.Ended = e.now
	e.meta.wantPages(nil)
	e.becomeMirroring("resync of " + e.cfg.Peer + " is done")
	e.settle()
	return nil
}

// stop ends a resync whose session is gone. Bits stay; locks go.
func (r *resync) stop() {
	e := r.engine
	r.active, r.needs, r.ending = false, false, false
	for id, c := range r.runs {
		delete(r.runs, id)
		switch {
		case c.lock.waits > 0:
			e.free = e.locks.abandon(&c.lock, e.free)
			r.put(c)
		case c.sent:
			e.unlock(&c.lock)
			r.put(c)
		default:
			e.unlock(&c.lock)
			c.dead = true
		}
	}
}

// busy reports whether a disk read of an earlier session is under way.
func (r *resync) busy() bool { return r.reads > 0 }

func (e *Engine) has(feature string) bool {
	for _, f := range e.session.features {
		if f == feature {
			return true
		}
	}
	return false
}

// isZero reports whether all of b is zero.
func isZero(b []byte) bool {
	for len(b) > 0 {
		n := min(len(b), len(zeroBlock))
		if !bytes.Equal(b[:n], zeroBlock[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}

var zeroBlock [64 << 10]byte

// packer compresses copies while that helps: after runs that hardly shrank it
// leaves some alone before it tries again.
type packer struct {
	buffer []byte
	skip   int
}

// skipAfter is how many runs go as they are after one that did not shrink.
const skipAfter = 16

// pack returns head and the compressed data, or nil when that is not worth it.
func (p *packer) pack(head, data []byte) []byte {
	if p.skip > 0 {
		p.skip--
		return nil
	}
	if p.buffer == nil {
		p.buffer = make([]byte, 8+s2.MaxEncodedLen(maxCopyBlocks*block.Size))
	}
	copy(p.buffer, head)
	packed := s2.Encode(p.buffer[8:], data)
	if len(packed) > len(data)*7/8 {
		p.skip = skipAfter
		return nil
	}
	return p.buffer[:8+len(packed)]
}
