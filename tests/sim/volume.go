// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"bytes"
	"time"

	"github.com/twinbd/twinbd/failover"
	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/mirror"
)

// volume is one volume of a process: the loop that drives an engine, its disks,
// its clients and its connections to the peer.
type volume struct {
	process *process
	ledger  *ledger
	store   *store
	engine  *mirror.Engine
	status  mirror.Status // as last published
	apart   uint64        // acknowledgements when, as the primary, it last lost an equal peer
	lease   time.Duration // until when replies may leave, on the node's clock
	heard   uint64        // the last word on being alone that it has taken
	asked   mirror.Ask
	waits   bool // for what was asked

	end      *end // of the connections to the peer; nil: none
	sessions []*session
	lastPost time.Duration // true time at which the last post runs

	tasks   [2][]*job // under way, by target, oldest first
	hanging bool      // a call within a turn does not return
	hungAt  time.Duration
	held    []func()
}

// job is a task with the disk.
type job struct {
	task   *block.Task
	copy   block.Task // what goes on without the engine's memory
	change uint64     // the last change of the disk before it was given
	given  time.Duration
	lost   bool // recalled
	done   bool
}

func newVolume(p *process, s *store) *volume {
	v := &volume{process: p, ledger: s.ledger, store: s}
	v.engine = mirror.New(mirror.Config{
		Cluster: "sim", Volume: s.ledger.name, Node: p.node.name, Peer: p.node.peerName(),
		PeerTimeout: peerTimeout, DiskTimeout: diskTimeout, FlushEvery: flushEvery, FlushBytes: s.ledger.flushBytes,
		Compress: true, Punch: s.ledger.id == 0, Incarnation: p.boot, Random: p.node.random, Arbiter: v, Observe: v.observe, Recall: v.recall,
	}, s.load())
	v.publish()
	return v
}

// Ask implements mirror.Arbiter.
func (v *volume) Ask(a mirror.Ask) {
	v.asked, v.waits = a, true
	v.process.poke()
}

func (v *volume) observe(e mirror.Event) {
	w := v.process.node.world
	w.note(e.Kind, int64(v.process.node.id), int64(v.ledger.id), int64(len(e.New)))
	w.say("%s %s: %s -> %s (%s)", v.store, e.Kind, e.Old, e.New, e.Reason)
	if e.Kind == "role" && e.New == "primary" {
		w.chosen(v)
	}
	v.publish()
	v.process.poke()
	if e.Kind == "session" {
		if e.Old == "mirroring" && v.status.Primary {
			v.apart = v.ledger.acks
		}
		w.sessionChanged(v)
	}
}

func (v *volume) publish() {
	if v.engine != nil {
		v.status = v.engine.Status()
	}
}

// run does something on the loop's thread, or when it turns again.
func (v *volume) run(f func()) {
	v.process.run(func() {
		if v.hanging {
			v.held = append(v.held, f)
			return
		}
		f()
	})
}

func (v *volume) after(d time.Duration, f func()) {
	v.process.node.world.after(d, func() { v.run(f) })
}

// post runs f on the loop's thread, after all that was posted before.
func (v *volume) post(f func(now time.Duration)) {
	w := v.process.node.world
	at := max(v.lastPost+1, w.now+v.process.soon())
	v.lastPost = at
	w.queue.push(at, func() {
		v.run(func() {
			f(v.process.node.clock())
			v.publish()
			v.kick()
			v.dispatch()
		})
	})
}

// tick is the engine's, and the watch of the disks.
func (v *volume) tick() {
	now := v.process.node.clock()
	v.engine.Tick(now)
	v.engine.CheckDisk(now, v.stuck())
	v.publish()
	v.dispatch()
	v.kick()
	v.checkMarks()
	v.after(mirror.TickEvery, v.tick)
}

// hang: a call within a turn does not return, for a while.
func (v *volume) hang(d time.Duration) {
	w := v.process.node.world
	v.hanging, v.hungAt = true, v.process.node.clock()
	w.trouble = w.now
	w.say("%s hangs", v.store)
	w.after(d, func() { v.process.run(v.unhang) })
}

func (v *volume) unhang() {
	w := v.process.node.world
	v.hanging, w.trouble = false, w.now
	held := v.held
	v.held = nil
	for _, f := range held {
		v.run(f)
	}
}

func (v *volume) hung() time.Duration {
	if !v.hanging {
		return 0
	}
	return v.process.node.clock() - v.hungAt
}

// stuck is for how long the disk has owed the answer that it owes longest.
func (v *volume) stuck() (longest time.Duration) {
	for _, jobs := range v.tasks {
		if len(jobs) > 0 {
			longest = max(longest, v.process.node.clock()-jobs[0].given)
		}
	}
	return longest
}

// dispatch sends what is to be sent, then gives the disks what became due.
func (v *volume) dispatch() {
	for {
		v.pump()
		tasks := v.engine.Tasks()
		if len(tasks) == 0 {
			return
		}
		for _, t := range tasks {
			v.give(t)
		}
	}
}

// give hands a task to its disk: metadata in order, data in none.
func (v *volume) give(t *block.Task) {
	j := &job{task: t, change: v.store.data.changes, given: v.process.node.clock()}
	v.tasks[t.Target] = append(v.tasks[t.Target], j)
	if t.Target == block.Data {
		v.serve(j)
	} else if len(v.tasks[block.Metadata]) == 1 {
		v.serve(j)
	}
}

func (v *volume) serve(j *job) {
	w := v.process.node.world
	w.after(v.store.takes(j.task), func() {
		if !v.process.ended && !j.done {
			v.work(j)
		}
	})
}

// work: the disk carries a task out, whether or not the process looks.
func (v *volume) work(j *job) {
	s := v.store
	if j.lost {
		if !s.hung[j.copy.Target] {
			s.carryOut(&j.copy, j.change) // for nobody
			v.finish(j)
		} else {
			v.later(j)
		}
		return
	}
	if s.hung[j.task.Target] {
		v.later(j)
		return
	}
	err := s.carryOut(j.task, j.change)
	j.done = true
	v.run(func() {
		if v.finish(j); j.lost {
			return
		}
		j.task.Err = err
		v.engine.Finished(v.process.node.clock(), j.task)
		v.dispatch()
	})
}

// later tries a task of a disk that hangs again.
func (v *volume) later(j *job) {
	v.process.node.world.after(20*time.Millisecond, func() {
		if !v.process.ended && !j.done {
			v.work(j)
		}
	})
}

// finish takes a job off the disk's list, and has the next of the metadata's begin.
func (v *volume) finish(j *job) {
	j.done = true
	t := j.task.Target
	if j.lost {
		t = j.copy.Target
	}
	list := v.tasks[t]
	for i, k := range list {
		if k == j {
			v.tasks[t] = append(list[:i], list[i+1:]...)
			break
		}
	}
	if t == block.Metadata && len(v.tasks[t]) > 0 {
		v.serve(v.tasks[t][0])
	}
}

// recall takes the memory of a task back: what the disk does later, it does with
// a copy.
func (v *volume) recall(t *block.Task) {
	for _, jobs := range v.tasks {
		for _, j := range jobs {
			if j.task == t && !j.lost {
				j.lost, j.copy = true, *t
				j.copy.Data, j.copy.Extents = bytes.Clone(t.Data), nil
			}
		}
	}
}

// died: the process has ended. What is with the disks may be done or not.
func (v *volume) died(power bool) {
	for _, jobs := range v.tasks {
		for _, j := range jobs {
			t := j.task
			if j.lost {
				t = &j.copy
			}
			if !j.done {
				v.store.torn(t)
			}
		}
	}
	v.tasks = [2][]*job{}
	for _, s := range v.sessions {
		s.broken()
	}
	v.sessions = nil
	if v.end != nil {
		v.end.hangUp(!power)
	}
}

// mayReply reports whether a reply may leave now (rule 20).
func (v *volume) mayReply() bool {
	return v.lease == failover.Forever || v.process.node.clock() < v.lease
}
