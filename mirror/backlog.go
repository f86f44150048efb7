// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"time"

	"github.com/twinbd/twinbd/internal/block"
)

// backlog is what was written and is not known to be durable on every disk that
// takes part. A page cache takes writes as fast as memory; the flush after them
// takes as long as the disk needs, and one that takes long looks like a disk, or
// a peer, that hangs (rules 8 and 15). So no more may be there than is flushed in
// about goal. What is beyond it waits in window.stalled, where neither disk has
// it: it is nobody's debt.
//
// At half of that a round begins, so that the disks flush one half while clients
// write the other. How much it is, the rounds show, two by two: a flush also takes
// what was in flight when its round began, of which the next one then finds
// nothing left to do. A slow round says what fits; a full one that was quick allows
// twice as much. One that had little to do only says how long the shortest flush
// takes. So the limit begins at the least, and quick disks have doubled it often
// enough within a second of writing.
type backlog struct {
	most  int64         // bytes, whatever the disks can do: Config.FlushBytes
	goal  time.Duration // what flushing all of it may take
	limit int64         // cost, as the rounds have shown

	before     int64 // cost of the round before
	beforeTook time.Duration

	inFlight work  // given to the disks
	open     work  // taken by them since the last round began
	closing  work  // to be made durable by the round under way
	end      int64 // of the last change: one that begins there is no seek
}

// work is an amount of changes.
type work struct {
	bytes  int64
	cost   int64 // for a disk to make them durable: bytes, and seekCost for each run of them
	zeroes int64 // changes whose bytes may cost nothing
}

const (
	// leastCost is what the limit never falls below: even 8 MB/s flush half of
	// it within a second.
	leastCost = 16 << 20

	// seekCost is the cost of moving to another place. A disk with heads writes
	// several times as much in that time, a solid one a small part of it. The
	// limit follows what the disk does; this keeps it right enough when clients
	// turn from long sequential writes to small scattered ones, or back.
	seekCost = 128 << 10
)

func (b *backlog) init(c *Config) {
	b.most, b.limit = c.FlushBytes, leastCost
	b.goal = min(time.Second, c.PeerTimeout/5, c.DiskTimeout/5)
}

// room reports whether one more change, of whatever length, may begin.
func (b *backlog) room() bool {
	return b.inFlight.bytes+b.open.bytes+b.closing.bytes < b.most && b.inFlight.cost+b.open.cost+b.closing.cost < b.limit
}

// due reports whether it is time for a round.
func (b *backlog) due() bool { return 2*b.open.bytes >= b.most || 2*b.open.cost >= b.limit }

// begin counts a change that is given to the disks.
func (b *backlog) begin(o *op) {
	o.work = work{bytes: o.length, cost: o.length}
	if o.offset != b.end {
		o.work.cost += seekCost
	}
	if o.kind != block.Write {
		o.work.zeroes = 1
	}
	b.end = o.offset + o.length
	b.inFlight.add(o.work, 1)
}

// taken counts a change that the disks have answered.
func (b *backlog) taken(o *op) {
	b.inFlight.add(o.work, -1)
	b.open.add(o.work, 1)
}

// flushing: a round begins.
func (b *backlog) flushing() { b.closing, b.open = b.open, work{} }

// flushed: the round is done, and shows what the disks can do.
func (b *backlog) flushed(took time.Duration) {
	w := b.closing
	b.closing = work{}
	pace := float64(w.cost+b.before) / max(took+b.beforeTook, time.Microsecond).Seconds()
	b.before, b.beforeTook = w.cost, took
	fits := int64(max(leastCost, min(pace*b.goal.Seconds(), float64(b.ceiling()))))
	slow, full := took > b.goal/2, 2*w.cost >= b.limit && w.zeroes == 0
	switch {
	case slow && fits < b.limit:
		b.limit = fits
	case full && fits > b.limit:
		b.limit = min(fits, 2*b.limit)
	}
}

// ceiling is the cost beyond which most is what counts.
func (b *backlog) ceiling() int64 { return b.most + b.most/block.Size*seekCost }

func (w *work) add(x work, sign int64) {
	w.bytes += sign * x.bytes
	w.cost += sign * x.cost
	w.zeroes += sign * x.zeroes
}
