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
	handed time.Duration // when it was handed over, if to an idle crew; else 0
	since  time.Duration // when a worker took it
	took   time.Duration // how long the disk needed
	mark   int64         // Flush: bytes that had been written before it
	ranges []extent      // Flush: what to forget afterwards; write-back: what to begin with

	// memory is held while the task's memory is touched, see perform.go.
	memory   sync.Mutex
	recalled bool // nobody touches that any more
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
	var own workspace
	for {
		j := c.take(i)
		if j == nil {
			return
		}
		j.perform(&own)
		j.took = c.clock() - j.since
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
	j := c.queue.pop()
	if j != nil {
		j.since = c.clock()
	}
	c.running[i] = j
	return j
}

// oldest is the job that a worker took first and has not done; its task and
// since do not change meanwhile. What still waits for a worker does not count: a
// queue may be long because the disk has much to do.
func (c *crew) oldest() (task *block.Task, since time.Duration, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, j := range c.running {
		if j != nil && (!ok || j.since < since) {
			task, since, ok = j.task, j.since, true
		}
	}
	return task, since, ok
}

// find returns the job of a task that is not done.
func (c *crew) find(t *block.Task) *job {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, j := range c.running {
		if j != nil && j.task == t {
			return j
		}
	}
	for j := c.queue.head; j != nil; j = j.next {
		if j.task == t {
			return j
		}
	}
	return nil
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
