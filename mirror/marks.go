// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"time"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/internal/block"
)

// marks is what is known to differ, or may: the intents, and the log of the
// writes that the peer has acknowledged and not flushed (rule 4). The dirty
// bits themselves are Engine.dirty.
//
// The log is two lists of extents: open takes what the peer acknowledges,
// closing is what the flush under way covers. When the flush is done, closing
// is forgotten; when the peer is lost, both become dirty.
type marks struct {
	intents *bitmap.Intents
	starved opQueue         // wait for a free intent
	waiting opQueue         // wait until their intents are durable, by transaction
	cold    []*bitmap.Entry // scratch of evict
	retry   bool            // an intent may have become free

	open, closing []extent
	lastFlush     time.Duration
}

// logExtents bounds the log: 1 MiB for each of the two lists.
const logExtents = 128 << 10

func (m *marks) init(e *Engine, md *bitmap.Metadata) {
	m.intents = bitmap.NewIntents(e.meta.layout)
	m.cold = make([]*bitmap.Entry, 0, evictBatch)
	m.open, m.closing = make([]extent, 0, logExtents), make([]extent, 0, logExtents)
	for _, region := range md.Regions {
		run := e.meta.layout.Region(region)
		if !mutated("intents found at start are dirty") {
			e.dirty.Set(run.First, run.Count)
		}
		// It stays until the bits are durable, and until the disk was flushed
		// here: what the last process wrote may still be in a cache, and a resync
		// that copies it from there clears the bits (rule 5).
		if i := m.intents.Add(region); i != nil && !mutated("an intent found at start stays until a flush") {
			i.Round = firstRound
		}
	}
}

// room reports whether the log can take one more extent beside those of the
// writes in flight. When it cannot, a flush is due.
func (m *marks) room(e *Engine, inFlight int) bool {
	if len(m.open)+inFlight < logExtents {
		return true
	}
	e.rounds.want(e)
	return false
}

// taken enters a change that both disks have taken into the log.
func (m *marks) taken(e *Engine, o *op) {
	m.log(blocksOf(o.offset, o.length))
}

func (m *marks) log(first, count int64) {
	if n := len(m.open); n > 0 {
		last := m.open[n-1]
		end := last.first() + last.count()
		if first == end && last.count()+count <= maxExtentCount {
			m.open[n-1] = makeExtent(last.first(), last.count()+count)
			return
		}
		if first >= last.first() && first+count <= end {
			return
		}
	}
	m.open = append(m.open, makeExtent(first, count))
}

// close moves the log into the flush that begins.
func (m *marks) close() {
	m.open, m.closing = m.closing[:0], append(m.open, m.closing...)
}

// flushed forgets what a finished flush of both disks covered.
func (m *marks) flushed() { m.closing = m.closing[:0] }

// dirtied marks the blocks of a change that the peer does not have.
func (m *marks) dirtied(e *Engine, o *op) {
	e.dirty.Set(blocksOf(o.offset, o.length))
}

// peerLost makes dirty what the peer has not flushed (rule 4).
func (m *marks) peerLost(e *Engine) {
	for k, list := range [...][]extent{m.open, m.closing} {
		if mutated("what was not flushed is dirty") || k == 1 && mutated("what is being flushed is dirty") {
			continue
		}
		for _, x := range list {
			e.dirty.Set(x.first(), x.count())
		}
	}
	m.open, m.closing = m.open[:0], m.closing[:0]
}

// tick flushes both disks when it is time (rule 4); much to flush makes it time
// earlier, see backlog.go.
func (m *marks) tick(e *Engine) {
	if len(m.open) > 0 && e.mode() == modeReplicate && e.now-m.lastFlush >= e.cfg.FlushEvery {
		e.rounds.want(e)
	}
}

// blocksOf are the blocks that a range of bytes touches.
func blocksOf(offset, length int64) (first, count int64) {
	first = offset / block.Size
	if mutated("part of a block counts as all of it") {
		return first, max(1, length/block.Size)
	}
	return first, (offset+length+block.Size-1)/block.Size - first
}
