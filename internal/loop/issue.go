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
		d.hand(d.clerk, d.meta, t, now)
		return now
	case t.Op == block.Flush && !d.mayFlush(alone):
		d.hand(d.syncer, d.data, t, now)
		return now
	case t.Op == block.Flush:
		return d.flushInline(t, now)
	case t.Op == block.Read:
		if d.tryRead(t) {
			return d.clock()
		}
	case t.Op != block.BlockStatus && d.mayChange(t):
		perform(d.data, t)
		return d.changed(now, t)
	}
	d.hand(d.movers, d.data, t, now)
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

// mayChange says whether a task that changes the disk, or Cache, is done inline.
func (d *Disks) mayChange(t *block.Task) bool {
	limit := int64(inlineZero)
	if t.Op == block.Write {
		limit = inlineMove
	}
	return !t.Drop && t.Length <= limit && d.policy.quick()
}

func (d *Disks) mayFlush(alone bool) bool {
	return d.o.InlineSync && alone && d.policy.syncQuick && len(d.policy.bulk) == 0
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
	return t.Op == block.Write && t.Target == block.Data && d.mayChange(t)
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
	d.writebackEarly(after)
	return after
}

// finish queues a task that was done inline.
func (d *Disks) finish(t *block.Task) {
	d.ready = append(d.ready, t)
	d.inline = true
}

// hand gives a task to workers.
func (d *Disks) hand(c *crew, disk block.Disk, t *block.Task, now time.Duration) {
	j := d.newJob(disk, now)
	j.task, j.mark = t, d.policy.written
	if t.Op == block.Flush && t.Target == block.Data {
		j.ranges, d.policy.bulk = d.policy.bulk, j.ranges
	}
	c.push(j)
}

func (d *Disks) writebackEarly(now time.Duration) {
	if d.advisor == nil || d.closed {
		return
	}
	if span, due := d.policy.writebackDue(); due {
		j := d.newJob(d.data, now)
		j.ranges = append(j.ranges, span)
		d.movers.push(j)
	}
}

func (d *Disks) newJob(disk block.Disk, now time.Duration) *job {
	d.handed++
	j := d.unused.pop()
	if j == nil {
		j = new(job)
	} else {
		d.kept--
	}
	j.disk, j.since = disk, now
	return j
}
