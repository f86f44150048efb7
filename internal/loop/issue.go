// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"errors"
	"fmt"
	"time"

	"github.com/twinbd/twinbd/internal/block"
)

// begin does one task inline or hands it over, and returns the time after it.
func (d *Disks) begin(t *block.Task, now time.Duration, alone bool) time.Duration {
	switch {
	case t.Target == block.Metadata && d.meta == nil:
		t.Err = fmt.Errorf("%v of metadata: %w", t.Op, errNoMetadata)
		d.finish(t)
		return now
	case t.Target == block.Metadata:
		d.hand(d.clerk, d.meta, t)
		return now
	case t.Op == block.Flush && !d.mayFlush(alone):
		d.hand(d.syncer, d.data, t)
		return now
	case t.Op == block.Flush:
		return d.flushInline(t, now)
	case t.Op == block.Read:
		if d.tryRead(t) {
			return d.clock()
		}
	case d.mayChange(t) && d.inCache(t):
		perform(d.data, t)
		return d.changed(now, t)
	}
	d.hand(d.movers, d.data, t)
	return now
}

var errNoMetadata = errors.New("the volume has no metadata disk")

// tryRead reports whether the read is done, well or not.
func (d *Disks) tryRead(t *block.Task) bool {
	if d.try == nil || t.Drop || len(t.Data) > inlineMove {
		return false
	}
	t.Err = d.try.TryReadAt(t.Data, t.Offset)
	if errors.Is(t.Err, block.ErrWouldBlock) {
		return false
	}
	d.finish(t)
	return true
}

// mayChange says whether a task that changes the disk is done inline, so far as
// its kind and the disk's speed tell.
func (d *Disks) mayChange(t *block.Task) bool {
	if t.Drop || !d.policy.quick() {
		return false
	}
	switch t.Op {
	case block.Write:
		return t.Length <= inlineMove
	case block.WriteZeroes, block.Trim:
		return t.Length <= inlineZero && !t.Punch // a hole is a change of the file's extents
	}
	return false
}

// inCache reports whether no block has to be read before the task can change
// it: those that it touches in part are in the page cache.
func (d *Disks) inCache(t *block.Task) bool {
	end := t.Offset + t.Length
	head, tail := t.Offset/block.Size*block.Size, end/block.Size*block.Size
	return (head == t.Offset || d.holds(head)) && (tail == end || tail < t.Offset || d.holds(tail))
}

func (d *Disks) holds(offset int64) bool {
	if d.try == nil {
		return false
	}
	b := d.edge[:min(block.Size, d.data.Size()-offset)]
	return d.try.TryReadAt(b, offset) == nil
}

// mayFlush says whether a flush is done inline: not what has piled up, which
// nobody may be waiting for.
func (d *Disks) mayFlush(alone bool) bool {
	p := &d.policy
	return d.o.InlineSync && alone && p.syncQuick && len(p.bulk) == 0 && p.written-p.synced <= inlineMove
}

func (d *Disks) flushInline(t *block.Task, now time.Duration) time.Duration {
	mark := d.policy.written
	perform(d.data, t)
	after := d.clock()
	d.policy.flushed(t, mark, after-now)
	d.finish(t)
	return after
}

// run is how many of the first tasks can be one vectored write, at least 1.
func (d *Disks) run(tasks []*block.Task) int {
	if d.vectored == nil || !d.joins(tasks[0]) {
		return 1
	}
	n, end := 1, tasks[0].Offset+tasks[0].Length
	for n < len(tasks) && n < mergeMost {
		t := tasks[n]
		if !d.joins(t) || t.Offset != end || end+t.Length-tasks[0].Offset > inlineMove {
			break
		}
		end += t.Length
		n++
	}
	return n
}

func (d *Disks) joins(t *block.Task) bool {
	whole := (t.Offset|t.Length)%block.Size == 0
	return t.Op == block.Write && t.Target == block.Data && whole && d.mayChange(t)
}

// writeRun writes adjacent tasks in one call; they share its outcome.
func (d *Disks) writeRun(tasks []*block.Task, now time.Duration) time.Duration {
	buffers := d.vector[:0]
	for _, t := range tasks {
		buffers = append(buffers, t.Data)
	}
	err := d.vectored.WriteVectorAt(buffers, tasks[0].Offset)
	clear(buffers)
	for _, t := range tasks {
		t.Err = err
	}
	return d.changed(now, tasks...)
}

// changed accounts for one inline call that changed the disk for tasks.
func (d *Disks) changed(now time.Duration, tasks ...*block.Task) time.Duration {
	after := d.clock()
	d.policy.judgeInline(after - now)
	for _, t := range tasks {
		d.policy.wrote(t)
		d.finish(t)
	}
	d.writebackEarly()
	return after
}

// finish queues a task that was done inline.
func (d *Disks) finish(t *block.Task) {
	d.ready = append(d.ready, t)
	d.inline = true
}

// hand gives a task to workers.
func (d *Disks) hand(c *crew, disk block.Disk, t *block.Task) {
	idle := d.handed == 0
	j := d.newJob(disk)
	j.task, j.mark = t, d.policy.written
	if idle {
		j.handed = d.clock()
	}
	if t.Op == block.Flush && t.Target == block.Data {
		j.ranges, d.policy.bulk = d.policy.bulk, j.ranges
	}
	c.push(j)
}

func (d *Disks) writebackEarly() {
	if d.advisor == nil || d.closed {
		return
	}
	if span, due := d.policy.writebackDue(); due {
		j := d.newJob(d.data)
		j.ranges = append(j.ranges, span)
		d.movers.push(j)
	}
}

func (d *Disks) newJob(disk block.Disk) *job {
	d.handed++
	j := d.unused.pop()
	if j == nil {
		j = new(job)
	} else {
		d.kept--
	}
	j.disk = disk
	return j
}
