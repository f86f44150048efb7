// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"log/slog"
	"slices"
	"time"

	"github.com/twinbd/twinbd/internal/block"
)

const (
	quickInARow = 32  // quick writes by workers that call a slow disk quick again
	handOvers   = 8   // an inline write that takes no longer than so many hand-overs is not slow
	keptRanges  = 256 // bulk writes remembered until the next flush; more is only advice lost
)

// policy is what is known of the data disk, to decide what may be done inline.
//
// A disk is slow from the first inline write that took too long, and quick
// again when workers have found it so several times in a row: so the loop's
// thread never tries by itself whether a slow disk has recovered.
type policy struct {
	log       *slog.Logger
	slowAfter time.Duration
	unsyncedLimit,
	writeback int64

	handOver time.Duration // what it takes to have a worker do something, see passed; 0: not known

	slow      bool
	inARow    int  // quick writes by workers
	syncQuick bool // the last flush was

	written int64 // bytes, by all writes
	synced  int64 // of them, durable

	rate float64 // bytes per second that the last long flush made durable; 0: not known

	dirty       int64    // bytes written since write-back was begun last
	span        extent   // in which they are
	writingBack bool     // it is being begun
	bulk        []extent // written, to be forgotten once durable
}

func newPolicy(o *DiskOptions, log *slog.Logger) policy {
	return policy{
		log: log, slowAfter: o.SlowAfter, unsyncedLimit: o.UnsyncedLimit, writeback: o.Writeback,
		syncQuick: true, bulk: make([]extent, 0, keptRanges),
	}
}

// quick says that writes may be done inline.
func (p *policy) quick() bool { return !p.slow && p.written-p.synced < p.unsyncedLimit }

// dearHandOver is the most that a hand-over is taken for: the disk may be what is slow.
const dearHandOver = 4 * time.Millisecond

// passed learns what a hand-over to an idle crew and back took, without what the disk
// did. It is 10 to 15 µs where processors are free, and milliseconds where they are not,
// or are emulated: there a worker costs more than it saves, and a write takes long
// because it is computed, not because it waits. The quickest one lately counts, for all
// else that could happen meanwhile only adds to it.
func (p *policy) passed(took time.Duration) {
	switch {
	case p.handOver == 0 || took < p.handOver:
		p.handOver = took
	default:
		p.handOver += (took - p.handOver) / 16
	}
	p.handOver = min(p.handOver, dearHandOver)
}

// tooLong says that what took so long is better done by a worker.
func (p *policy) tooLong(took time.Duration) bool {
	return took > max(p.slowAfter, handOvers*p.handOver)
}

// judgeInline learns from an inline write.
func (p *policy) judgeInline(took time.Duration) {
	if p.tooLong(took) && !p.slow {
		p.slow, p.inARow = true, 0
		p.log.Debug("disk is slow, writes go to workers", "took", took)
	}
}

// judgeWorker learns from a write that a worker did.
func (p *policy) judgeWorker(took time.Duration) {
	if p.tooLong(took) {
		p.inARow = 0
		return
	}
	p.inARow++
	if p.slow && p.inARow >= quickInARow {
		p.slow = false
		p.log.Debug("disk is quick again, writes are done inline")
	}
}

// wrote counts a finished write.
func (p *policy) wrote(t *block.Task) {
	if t.Op != block.Write || t.Err != nil {
		return
	}
	p.written += t.Length
	if p.dirty == 0 {
		p.span = extent{t.Offset, t.Offset}
	}
	p.dirty += t.Length
	p.span.start = min(p.span.start, t.Offset)
	p.span.end = max(p.span.end, t.Offset+t.Length)
	if t.Drop {
		p.remember(extent{t.Offset, t.Offset + t.Length})
	}
}

// remember notes a bulk write.
func (p *policy) remember(x extent) {
	if n := len(p.bulk); n > 0 && p.bulk[n-1].end == x.start {
		p.bulk[n-1].end = x.end
		return
	}
	if len(p.bulk) == keptRanges {
		p.bulk = slices.Delete(p.bulk, 0, 1)
	}
	p.bulk = append(p.bulk, x)
}

// flushed learns from a flush before which mark bytes had been written.
func (p *policy) flushed(t *block.Task, mark int64, took time.Duration) {
	p.syncQuick = !p.tooLong(took)
	if t.Err != nil {
		return
	}
	if n := mark - p.synced; n >= p.writeback {
		p.rate = float64(n) / max(took, time.Microsecond).Seconds()
	}
	p.synced = max(p.synced, mark)
	p.dirty = min(p.dirty, p.written-mark)
}

// flushSpan is how long a flush may take before it pays to begin writing back
// ahead of it. That costs: a block that is written again soon is written back
// twice, and meanwhile writes wait for pages that are being written back.
const flushSpan = 500 * time.Millisecond

// writebackDue returns what to begin writing back early, so that a flush finds
// no more to do than the disk does in flushSpan.
func (p *policy) writebackDue() (extent, bool) {
	if p.dirty < max(p.writeback, int64(p.rate*flushSpan.Seconds())) || p.writingBack {
		return extent{}, false
	}
	p.writingBack, p.dirty = true, 0
	return p.span, true
}
