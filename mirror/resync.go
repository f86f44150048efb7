// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"encoding/binary"
	"encoding/json"
	"slices"
	"time"

	"github.com/twinbd/twinbd/bitmap"
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
//	source  no bit left, both flushed since, the base durably gone: finish
//	target  durably of the source's generation; finished
//	source  mirroring
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
	runs   []*copyRun // under way, at most idleRuns
	reads  int        // disk reads under way, of any session
	free   *copyRun
	saved  int64 // blocks cleared since the bits were last saved

	ending bool // waiting for the flush before finish
	beside int  // runs that may be under way beside clients, 1 to besideRuns

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

	// idleRuns is how many runs are under way while clients are quiet, and
	// besideRuns the most while they wait for answers.
	idleRuns   = 16
	besideRuns = 8

	// Beside clients the rate follows their latency: one run less when a write
	// takes longer than slowAnswer, one more when it takes less than quickAnswer.
	slowAnswer  = 5 * time.Millisecond
	quickAnswer = 2 * time.Millisecond

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

// conclude takes what both have concluded.
func (r *resync) conclude(v Verdict) {
	r.source, r.full = v.Source == r.engine.cfg.Node, v.Action == ActionFull
	r.active, r.ending, r.needs = false, false, false
}

// compare begins a resync: the target speaks first.
func (r *resync) compare() {
	if !r.source {
		r.sendDirty()
	}
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

// stop ends a resync whose session is gone. Bits stay; locks go.
func (r *resync) stop() {
	e := r.engine
	r.active, r.needs, r.ending = false, false, false
	for _, c := range r.runs {
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
	r.runs = r.runs[:0]
}

// busy reports whether a disk read of an earlier session is under way.
func (r *resync) busy() bool { return r.reads > 0 }

func (e *Engine) has(feature string) bool { return slices.Contains(e.session.features, feature) }

// leads reports whether a resync from this node is being prepared or under way.
func (r *resync) leads() bool {
	s := r.engine.session.state
	return r.source && (s == Comparing || s == Resyncing)
}
