// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"
)

// The pace of the service, as an impatient operator would set it.
const (
	heartbeat   = 200 * time.Millisecond
	timeout     = time.Second
	peerTimeout = 1500 * time.Millisecond
	diskTimeout = 2 * time.Second
	flushEvery  = 400 * time.Millisecond
)

// The places, as ends of lines.
const (
	alpha = iota
	beta
	third // the witness
)

var places = [...]string{"alpha", "beta", "witness"}

// world is one schedule: two nodes, a witness, the lines between them, clients,
// and what must hold. All of it happens in one goroutine, in an order and with
// choices that follow from the seed.
type world struct {
	opt   Options
	now   time.Duration // the true time; every node has a clock of its own
	queue queue

	// Each has choices of its own, so that leaving out a fault changes as
	// little as possible of the rest.
	net, disks, clients, moods *rand.Rand

	nodes   [2]*node
	witness witness
	lines   [3][3]line
	volumes [2]*ledger
	plan    plan
	boots   uint64

	calm    bool // clients ask for nothing
	seen    record
	trouble time.Duration // when a line was last cut or mended, or a node or a volume stood still or went on
	excused int           // lies of a disk that cost something, and may

	hash  uint64
	trace []string
	stats Stats
}

// Options say which schedule is run, and how much is told.
type Options struct {
	Seed  uint64
	Keep  []int // faults of the plan that happen; nil: all
	Ops   int   // requests of clients after which no more are made; 0: as planned
	Trace bool  // keep what happens, as text
}

// Stats is what happened in a schedule, or in many.
type Stats struct {
	Schedules, Ops, Faults, Aimed     int
	Refused, Resyncs, Events          int
	Covers, Excused, Losses, Verifies int
	Kinds                             [faultKinds]int
}

// Add sums up.
func (s *Stats) Add(o Stats) {
	s.Schedules += o.Schedules
	s.Ops += o.Ops
	s.Faults += o.Faults
	s.Aimed += o.Aimed
	s.Refused += o.Refused
	s.Resyncs += o.Resyncs
	s.Events += o.Events
	s.Covers += o.Covers
	s.Excused += o.Excused
	s.Losses += o.Losses
	s.Verifies += o.Verifies
	for i, n := range o.Kinds {
		s.Kinds[i] += n
	}
}

// Result is how a schedule ended.
type Result struct {
	Failure string // empty if all held
	Hash    uint64 // of the transcript
	Plan    []string
	Trace   []string
	Stats   Stats
}

// broken is what fail panics with: it ends the schedule from wherever it is.
type broken struct{ why string }

// Run runs one schedule.
func Run(opt Options) (res Result) {
	w := newWorld(opt)
	defer func() {
		if cause := recover(); cause != nil {
			b, ok := cause.(broken)
			if !ok {
				b.why = fmt.Sprintf("panic: %v", cause)
				w.say("%s\n%s", b.why, debug.Stack())
			}
			res.Failure = b.why
		}
		w.stats.Schedules = 1
		w.stats.Excused = w.excused
		res.Hash, res.Trace, res.Stats, res.Plan = w.hash, w.trace, w.stats, w.plan.lines()
	}()
	w.run()
	return res
}

func newWorld(opt Options) *world {
	source := func(n uint64) *rand.Rand { return rand.New(rand.NewPCG(opt.Seed, n)) }
	w := &world{opt: opt, hash: 14695981039346656037, net: source(1), disks: source(2), clients: source(3), moods: source(4)}
	w.now = time.Hour
	w.plan = newPlan(w, source(5))
	for i := range w.volumes {
		w.volumes[i] = newLedger(w, i)
	}
	w.openWitness()
	for i := range w.nodes {
		w.nodes[i] = newNode(w, i)
	}
	return w
}

// after has something happen in a while, whatever becomes of the nodes.
func (w *world) after(d time.Duration, do func()) { w.queue.push(w.now+d, do) }

// step lets the next thing happen, and checks what it may have changed.
func (w *world) step() {
	e := w.queue.pop()
	w.now = e.at
	w.stats.Events++
	e.do()
	w.check()
}

// until lets things happen until a condition holds, at most for a while. It
// reports whether it came to hold.
func (w *world) until(limit time.Duration, holds func() bool) bool {
	for end := w.now + limit; !holds(); w.step() {
		if len(w.queue.heap) == 0 || w.queue.heap[0].at > end {
			w.now = max(w.now, end)
			return holds()
		}
	}
	return true
}

// pass lets time pass.
func (w *world) pass(d time.Duration) { w.until(d, func() bool { return false }) }

// note takes something that happened into the transcript's hash.
func (w *world) note(what string, numbers ...int64) {
	h := w.hash
	for i := range len(what) {
		h = (h ^ uint64(what[i])) * 1099511628211
	}
	for _, n := range append(numbers, int64(w.now)) {
		h = (h ^ uint64(n)) * 1099511628211
		h ^= h >> 29
	}
	w.hash = h
}

// say keeps a line for people, where somebody wants to read it.
func (w *world) say(format string, args ...any) {
	if !w.opt.Trace {
		return
	}
	line := fmt.Sprintf("%12.6f ", (w.now-time.Hour).Seconds()) + fmt.Sprintf(format, args...)
	w.trace = append(w.trace, line)
}

// fail ends the schedule: a rule is broken.
func (w *world) fail(format string, args ...any) {
	why := fmt.Sprintf(format, args...)
	w.say("BROKEN: %s", why)
	panic(broken{why})
}

func (w *world) must(err error) {
	if err != nil {
		w.fail("%v", err)
	}
}

// between is a time from low to high, most often near low.
func between(r *rand.Rand, low, high time.Duration) time.Duration {
	f := r.Float64()
	return low + time.Duration(f*f*f*float64(high-low))
}

// filler makes a source of random bytes of a generator.
type filler struct{ r *rand.Rand }

func (f filler) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(f.r.Uint32())
	}
	return len(p), nil
}
