// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/twinbd/twinbd/internal/block"
)

// The defaults and limits of Disks.
const (
	DefaultWorkers       = 4
	DefaultSlowAfter     = time.Millisecond
	DefaultUnsyncedLimit = 64 << 20
	DefaultWriteback     = 64 << 20
	DefaultHangAfter     = 30 * time.Second

	inlineMove  = 1 << 20  // bytes that are read or written inline at most
	inlineZero  = 64 << 10 // bytes that are zeroed inline at most
	returnBatch = 1024     // tasks handed back before the sockets' turn
	keptJobs    = 1024     // unused jobs that are kept
	mergeMost   = 256      // buffers in one vectored write
)

// DiskOptions says how Disks behaves. The zero value means the defaults.
type DiskOptions struct {
	Workers       int           // goroutines for the data disk, besides the one that syncs
	SlowAfter     time.Duration // an inline write that took longer, and than some hand-overs, sends all writes to the workers
	UnsyncedLimit int64         // bytes; so does this much written and not synced
	Writeback     int64         // bytes written after which write-back may begin early, see policy.go
	HangAfter     time.Duration // how long Close waits for a disk that does not answer

	// InlineSync carries a flush of the data disk out inline when nothing
	// else is under way and the last one was quick. It saves two thread
	// switches, and stops the loop for as long as the disk takes.
	InlineSync bool

	Logger *slog.Logger // nil: the loop's
}

func (o *DiskOptions) setDefaults(l *Loop) {
	if o.Workers <= 0 {
		o.Workers = DefaultWorkers
	}
	if o.SlowAfter <= 0 {
		o.SlowAfter = DefaultSlowAfter
	}
	if o.UnsyncedLimit <= 0 {
		o.UnsyncedLimit = DefaultUnsyncedLimit
	}
	if o.Writeback <= 0 {
		o.Writeback = DefaultWriteback
	}
	if o.HangAfter <= 0 {
		o.HangAfter = DefaultHangAfter
	}
	if o.Logger == nil {
		o.Logger = l.log
	}
}

// Disks carries out the tasks of one volume. What is quick is done on the
// loop's thread, because that is quicker than any way of handing it over; what
// can block goes to workers:
//
//   - a read is tried inline and goes to a worker when it would wait;
//   - a write is done inline while the disk takes writes quickly, as a page
//     cache does: not when the last inline one took long, nor when much is
//     unsynced, nor when it is large or bulk, nor when a block that it touches
//     in part would have to be read from the disk first;
//   - small zeroing like a write; large, or with a hole punched, on a worker;
//   - Flush on a worker of its own: an engine has one at a time in flight;
//   - everything for the metadata disk on one worker, in the order of Do.
//
// Tasks of the data disk that are in flight together have no order; an engine
// never has two that overlap.
//
// What is inline can hang all the same when the disk dies at the wrong moment,
// and the loop with it: Loop.Turning shows that to others. The kernel offers no
// write to the page cache that rather fails than waits (RWF_NOWAIT) on ext4, on
// tmpfs and on block devices.
type Disks struct {
	loop       *Loop
	data, meta block.Disk
	try        block.TryReader // data, where it can
	vectored   block.Vectored
	advisor    block.Advisor
	o          DiskOptions
	done       func(*block.Task)
	clock      func() time.Duration // runs while the machine runs

	movers, syncer, clerk *crew
	back                  returns
	inlineSince           atomic.Int64 // when the present inline run began, 0 outside

	// The rest belongs to the loop's thread.
	ready  []*block.Task // finished, in order; ready[head:] to be handed back
	head   int
	inline bool // some of ready was done inline in this turn
	unused jobs
	kept   int // jobs in unused
	handed int // jobs out
	closed bool
	one    [1]*block.Task
	vector [][]byte
	edge   [block.Size]byte
	policy policy
}

// NewDisks returns the driver of a volume's disks. meta may be nil when no task
// asks for it. It is called on the loop's thread or before Run.
//
// done gets each task back exactly once, with Err set, on the loop's thread:
// never from within Do, but between the steps of a turn — what workers finished
// before Core.Turn, what was done inline right after it and before the streams'
// output is sent — in the order in which tasks were finished. It may call Do.
func NewDisks(l *Loop, data, meta block.Disk, o DiskOptions, done func(*block.Task)) *Disks {
	o.setDefaults(l)
	start := time.Now()
	d := &Disks{
		loop: l, data: data, meta: meta, o: o, done: done,
		clock:  func() time.Duration { return time.Since(start) + 1 },
		vector: make([][]byte, 0, mergeMost),
		policy: newPolicy(&o, o.Logger.With("volume", l.name)),
	}
	d.try, _ = data.(block.TryReader)
	d.vectored, _ = data.(block.Vectored)
	d.advisor, _ = data.(block.Advisor)
	d.back.wake = l.wake
	d.movers = newCrew(o.Workers, d.clock, &d.back)
	d.syncer = newCrew(1, d.clock, &d.back)
	d.clerk = newCrew(1, d.clock, &d.back)
	l.sources = append(l.sources, d)
	return d
}

// Do begins a task. The task and its data belong to the driver until done has
// it. Loop's thread only.
func (d *Disks) Do(t *block.Task) {
	d.one[0] = t
	d.DoAll(d.one[:])
}

// DoAll begins tasks in their order; writes that follow each other on the disk
// may become one. tasks itself is free again when DoAll returns. Loop's thread
// only.
func (d *Disks) DoAll(tasks []*block.Task) {
	if d.closed {
		for _, t := range tasks {
			t.Err = os.ErrClosed
			d.finish(t)
		}
		return
	}
	now := d.clock()
	d.inlineSince.Store(int64(now))
	alone := len(tasks) == 1 && d.handed == 0
	for len(tasks) > 0 {
		n := d.run(tasks)
		if n > 1 {
			now = d.writeRun(tasks[:n], now)
		} else {
			now = d.begin(tasks[0], now, alone)
		}
		tasks = tasks[n:]
	}
	d.inlineSince.Store(0)
}

// Recall takes back the memory of a task that does not come back, for a request
// that goes on without the disk: when it returns, nobody touches Data or Extents
// any more, and what waited for a worker is not begun. The task itself still
// comes back when the disk answers, with an outcome that means nothing. A task
// with Drop cannot be recalled: its memory stays the driver's. Loop's thread only.
func (d *Disks) Recall(t *block.Task) {
	for _, c := range d.crews() {
		if j := c.find(t); j != nil {
			j.recall()
			return
		}
	}
}

// Stuck is for how long the disk has owed the answer that it owes longest, 0
// when there is none. Any goroutine may call it.
func (d *Disks) Stuck() time.Duration {
	first := d.clock()
	now := first
	if t := d.inlineSince.Load(); t != 0 {
		first = min(first, time.Duration(t))
	}
	for _, c := range d.crews() {
		if _, since, ok := c.oldest(); ok {
			first = min(first, since)
		}
	}
	return now - first
}

// Close lets the workers finish what they have, hands it back through done, and
// ends them. It is called on the loop's thread, or after Run has returned; it
// does not close the disks. When a disk does not answer for HangAfter, Close
// gives up: the error names the task, which is never handed back, and whose
// memory and disk must not be used again.
func (d *Disks) Close() error {
	d.closed = true
	ended := make(chan struct{})
	for _, c := range d.crews() {
		c.close()
	}
	go func() {
		for _, c := range d.crews() {
			c.ended.Wait()
		}
		close(ended)
	}()
	timer := time.NewTimer(d.o.HangAfter)
	defer timer.Stop()
	var err error
	select {
	case <-ended:
	case <-timer.C:
		err = d.hung()
	}
	for d.deliver() > 0 {
	}
	d.loop.removeSource(d)
	return err
}

func (d *Disks) crews() [3]*crew { return [...]*crew{d.movers, d.syncer, d.clerk} }

func (d *Disks) hung() error {
	for _, c := range d.crews() {
		task, since, ok := c.oldest()
		if !ok {
			continue
		}
		what := "write-back"
		if task != nil {
			what = fmt.Sprintf("%v of %d bytes at %d", task.Op, task.Length, task.Offset)
		}
		return fmt.Errorf("close disks of %s: %s has had no answer for %v; hint: look in the kernel log for the disk's errors",
			d.loop.name, what, (d.clock() - since).Round(time.Millisecond))
	}
	return nil // it answered in the last moment
}

// pending says that deliver has something to do: it is the loop's source.
func (d *Disks) pending() bool { return d.head < len(d.ready) }

// deliver hands back what is finished.
func (d *Disks) deliver() int {
	finished := d.back.take()
	for j := finished.pop(); j != nil; j = finished.pop() {
		d.settle(j)
	}
	if d.inline {
		// Inline work may have taken long, and who acknowledges looks at the
		// clock first.
		d.inline = false
		d.loop.now = d.loop.clock()
	}
	n := 0
	for n < returnBatch && d.pending() {
		t := d.ready[d.head]
		d.ready[d.head] = nil
		d.head++
		n++
		d.done(t)
	}
	if !d.pending() {
		d.ready, d.head = d.ready[:0], 0
	}
	return n
}

// settle takes a job back from a worker.
func (d *Disks) settle(j *job) {
	d.handed--
	if j.handed > 0 {
		d.policy.passed(d.clock() - j.handed - j.took)
	}
	if j.task == nil {
		d.policy.writingBack = false
	} else {
		if !j.recalled {
			d.learn(j)
		}
		d.ready = append(d.ready, j.task)
	}
	*j = job{ranges: j.ranges[:0]}
	if d.kept < keptJobs {
		d.unused.push(j)
		d.kept++
	}
}

// learn adapts the policy to what a worker's task took.
func (d *Disks) learn(j *job) {
	t := j.task
	if t.Target != block.Data {
		return
	}
	switch t.Op {
	case block.Flush:
		d.policy.flushed(t, j.mark, j.took)
	case block.Write:
		if t.Length <= inlineMove {
			d.policy.judgeWorker(j.took)
		}
		d.policy.wrote(t)
		d.writebackEarly()
	}
}

var _ source = (*Disks)(nil)
