// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/twinbd/twinbd/internal/block"
)

// job is a disk task on its way through a crew and back.
type job struct {
	next   *job
	task   *block.Task   // nil for write-back
	disk   block.Disk    // on which
	since  time.Duration // when it was handed over
	took   time.Duration // how long the disk needed
	mark   int64         // Flush: bytes that had been written before it
	ranges []extent      // Flush: what to forget afterwards; write-back: what to begin with
}

// extent is a range of bytes.
type extent struct{ start, end int64 }

func (x extent) length() int64 { return x.end - x.start }

// jobs is a queue.
type jobs struct{ head, tail *job }

func (q *jobs) push(j *job) {
	j.next = nil
	if q.tail == nil {
		q.head = j
	} else {
		q.tail.next = j
	}
	q.tail = j
}

func (q *jobs) pop() *job {
	j := q.head
	if j == nil {
		return nil
	}
	if q.head = j.next; q.head == nil {
		q.tail = nil
	}
	j.next = nil
	return j
}

// crew is some goroutines that do jobs, each in turn the oldest that waits.
// What is handed over is bounded by what engines keep in flight.
type crew struct {
	clock func() time.Duration
	back  *returns

	mu      sync.Mutex
	arrived sync.Cond
	queue   jobs
	running []*job // by worker
	closed  bool
	ended   sync.WaitGroup
}

// returns is where finished jobs wait for the loop.
type returns struct {
	wake func()
	any  atomic.Bool
	mu   sync.Mutex
	done jobs
}

func newCrew(workers int, clock func() time.Duration, back *returns) *crew {
	c := &crew{clock: clock, back: back, running: make([]*job, workers)}
	c.arrived.L = &c.mu
	for i := range workers {
		c.ended.Go(func() { c.work(i) })
	}
	return c
}

func (c *crew) push(j *job) {
	c.mu.Lock()
	c.queue.push(j)
	c.mu.Unlock()
	c.arrived.Signal()
}

func (c *crew) work(i int) {
	for {
		j := c.take(i)
		if j == nil {
			return
		}
		start := c.clock()
		j.perform()
		j.took = c.clock() - start
		c.mu.Lock()
		c.running[i] = nil
		c.mu.Unlock()
		c.back.put(j)
	}
}

// take returns nil when the crew is closed and nothing is left to do.
func (c *crew) take(i int) *job {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.queue.head == nil && !c.closed {
		c.arrived.Wait()
	}
	c.running[i] = c.queue.pop()
	return c.running[i]
}

// oldest is the job that was handed over first and is not done; its task and
// since do not change meanwhile.
func (c *crew) oldest() (task *block.Task, since time.Duration, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, j := range c.running {
		if j != nil && (!ok || j.since < since) {
			task, since, ok = j.task, j.since, true
		}
	}
	if j := c.queue.head; j != nil && !ok {
		task, since, ok = j.task, j.since, true
	}
	return task, since, ok
}

func (c *crew) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.arrived.Broadcast()
}

func (r *returns) put(j *job) {
	r.mu.Lock()
	r.done.push(j)
	r.mu.Unlock()
	r.any.Store(true)
	r.wake()
}

func (r *returns) take() jobs {
	if !r.any.Load() {
		return jobs{}
	}
	r.any.Store(false) // first: what comes after the lock sets it again
	r.mu.Lock()
	defer r.mu.Unlock()
	q := r.done
	r.done = jobs{}
	return q
}

// perform is the part of a job that may wait.
func (j *job) perform() {
	advisor, advises := j.disk.(block.Advisor)
	if j.task == nil {
		for _, x := range j.ranges {
			advisor.StartWriteback(x.start, x.length())
		}
		return
	}
	perform(j.disk, j.task)
	if !advises || j.task.Err != nil {
		return
	}
	if j.task.Op == block.Flush {
		for _, x := range j.ranges {
			advisor.Drop(x.start, x.length())
		}
	}
	if j.task.Drop {
		j.forget(advisor)
	}
}

// forget keeps bulk data from crowding the page cache. What was read goes at
// once; what was written can go only when it is clean, after the next flush.
func (j *job) forget(advisor block.Advisor) {
	switch j.task.Op {
	case block.Read:
		advisor.Drop(j.task.Offset, j.task.Length)
	case block.Write:
		advisor.StartWriteback(j.task.Offset, j.task.Length)
	}
}

// perform does a task in its blocking form and sets Err.
func perform(disk block.Disk, t *block.Task) {
	switch t.Op {
	case block.Read:
		// Bulk readers know what to do with a hole; it is not read.
		if t.Zeroes = t.Drop && block.IsHole(disk, t.Offset, t.Length); !t.Zeroes {
			t.Err = disk.ReadAt(t.Data, t.Offset)
		}
	case block.Write:
		t.Err = disk.WriteAt(t.Data, t.Offset)
	case block.WriteZeroes, block.Trim:
		t.Err = disk.Zero(t.Offset, t.Length, t.Punch)
	case block.Flush:
		t.Err = disk.Sync()
	case block.Cache:
		t.Err = nil
		if a, ok := disk.(block.Advisor); ok {
			a.WillNeed(t.Offset, t.Length)
		}
	case block.BlockStatus:
		t.Extents, t.Err = block.Allocation(t.Extents, disk, t.Offset, t.Length)
	default:
		t.Err = block.Invalid
	}
}
