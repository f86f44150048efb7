// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"flag"
	"fmt"
	"maps"
	"math"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	modelFrom    = flag.Int("model.from", 0, "begin with so many faults")
	modelStates  = flag.Int("model.states", 1_200, "how many states to explore per bound and start")
	modelFaults  = flag.Int("model.faults", 2, "explore up to so many faults in one history")
	modelWrites  = flag.Int("model.writes", 1, "writes of clients in one history")
	modelWords   = flag.Int("model.words", 1, "operators' words in one history")
	modelVerbose = flag.Bool("model.verbose", false, "histories with every message")
	modelHeal    = flag.Int("model.heal", 40, "let every so-many-th state heal")
	modelWhole   = flag.Int("model.whole", 0, "explore to the end from starts with so many states, or fewer, within the bound before")
	modelStart   = flag.String("model.start", "", "explore from the starts whose names contain this only")
)

// TestModel explores, breadth first, all that can follow from each of the
// starts within a bound of events: faults, operators' words and clients' writes.
// In every state what must hold, and from a sample of them that service returns
// once the faults are healed. A broken rule comes with its shortest history. For
// each bound it counts the kinds of transition that no bound below has met.
func TestModel(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // states are many, and live long
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(4 << 30))
	sizes := make([]int, len(starts))
	for events := *modelFrom; events <= *modelFaults; events++ {
		began := time.Now()
		left := budget{all: uint8(events), faults: uint8(events), words: uint8(*modelWords), writes: uint8(*modelWrites), disks: 1}
		states, healed, exhausted, of, fresh := 0, 0, 0, 0, newKinds()
		for k, x := range exploreFrom(nil, limits(sizes), *modelHeal, left) {
			if x == nil {
				continue
			}
			if *modelVerbose {
				t.Logf("  from %s: %d states, %d steps deep, %d kinds%s", starts[k].name, len(x.parents), x.depth, len(x.kinds.met), x.ended())
			}
			if x.broken != "" {
				t.Fatalf("%d events, from %s: %s\n%s", events, starts[k].name, x.broken, x.history())
			}
			states, healed, of = states+len(x.parents), healed+x.healed, of+1
			sizes[k] = len(x.parents)
			if !x.stopped {
				exhausted++
			}
			maps.Copy(fresh.met, modelKinds.add(x.kinds))
		}
		took := time.Since(began).Seconds()
		t.Logf("| %d | %d of %d | %d | %d | %d | %d | %.0f s |", events, exhausted, of, states, healed, len(modelKinds.met), len(fresh.met), took)
		if events > *modelFrom {
			modelKinds.log(t, fresh.met)
		}
	}
}

// modelKinds are the kinds of transition that were met within the bounds so far.
var modelKinds = newKinds()

func (k *kinds) log(t *testing.T, fresh map[kindOf]uint8) {
	if !*modelVerbose {
		return
	}
	for kind, events := range fresh {
		t.Logf("  new after %d: %v", events, kind)
	}
}

// limits are how many states to explore from each start: no end of them where
// there were few within the bound before.
func limits(sizes []int) []int {
	list := make([]int, len(starts))
	for k := range list {
		if list[k] = *modelStates; sizes[k] > 0 && sizes[k] <= *modelWhole {
			list[k] = math.MaxInt32
		}
	}
	return list
}

// exploreFrom explores from every start but some, two at a time, and returns
// what became of each. It stops at the first rule that is broken.
func exploreFrom(without map[string]bool, limits []int, heal int, left budget) []*explorer {
	all := make([]*explorer, len(starts))
	var next, broken atomic.Int32
	broken.Store(int32(len(starts)))
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			for k := next.Add(1) - 1; k < min(int32(len(starts)), broken.Load()); k = next.Add(1) - 1 {
				if without[starts[k].name] || !strings.Contains(starts[k].name, *modelStart) {
					continue
				}
				x := &explorer{limit: limits[k], heal: heal, kinds: newKinds()}
				x.kinds.events = left.all
				all[k] = x
				if x.begin(starts[k].world, left); x.broken != "" {
					broken.Store(min(k, broken.Load()))
				}
				x.seen, x.next, x.spare = nil, nil, nil
			}
		})
	}
	group.Wait()
	return all[:min(len(all), int(broken.Load())+1)]
}

// begin also takes what breaks on the way to the start. A start that is
// not reached, because a rule is left out, is none.
func (x *explorer) begin(start func() *world, left budget) {
	defer func() {
		switch p := recover().(type) {
		case nil, noStart:
		default:
			x.broken, x.early = fmt.Sprint(p), true
		}
	}()
	x.explore(start(), left)
}

// noStart is why a start is not reached, though nothing that must hold broke.
type noStart string

// explorer goes through the states of a world at rest: between two of them lies
// a choice, and all that follows from it at once. Messages that nothing holds
// back arrive in order, so that their orders need not be tried; one of them at
// most goes another way.
type explorer struct {
	limit, heal int

	canon   canon
	seen    map[fingerprint]struct{}
	parents []step // by which every state was first reached
	kinds   *kinds
	healed  int
	depth   int
	stopped bool
	start   *world
	broken  string
	early   bool  // on the way to the start
	at      int32 // of the state in which a rule was broken
	healing int   // 0: not while healing; else of the kind below
	next    []frontier
	spare   []*world // not needed any more
}

// step is a choice, and what is chosen at the event of that number which
// follows from it, counted from 1; 0: nothing.
type step struct {
	from   int32
	choice choice
	number uint16
	other  choice
}

type frontier struct {
	w    *world
	left budget
	id   int32
}

func (x *explorer) ended() string {
	if x.stopped {
		return ", not exhausted"
	}
	return ", exhausted"
}

// explore returns the first broken rule.
func (x *explorer) explore(start *world, left budget) string {
	start.kinds = x.kinds
	x.start, x.seen = start, map[fingerprint]struct{}{}
	x.seen[x.canon.of(start, left)] = struct{}{}
	x.parents = []step{{from: -1}}
	for h := range healings {
		if x.broken = x.tryHeal(start, h); x.broken != "" {
			return x.broken
		}
	}
	level := []frontier{{x.copy(start), left, 0}}
	var list []choice
	for ; len(level) > 0; x.depth++ {
		x.next = nil
		for k := range level {
			list = level[k].w.calmChoices(level[k].left, list[:0])
			for _, c := range list {
				if x.spread(&level[k], c); x.broken != "" || x.stopped {
					return x.broken
				}
			}
			x.spare = append(x.spare, level[k].w)
			level[k].w = nil
		}
		level = x.next
	}
	return ""
}

// spread makes a choice, and lets what follows from it happen: as it should,
// and with each fault at each event. A choice that is a fault is enough for
// once.
func (x *explorer) spread(f *frontier, c choice) {
	w, left := x.copy(f.w), f.left
	left.take(c)
	w.choose(c)
	var others []choice
	for number := uint16(1); len(w.queue) > 0 && w.broken == ""; number++ {
		if left.faults > 0 && left.all == f.left.all {
			others = w.faultsAt(left, others[:0])
			for _, other := range others {
				v, b := x.copy(w), left
				b.take(other)
				v.choose(other)
				v.settle()
				if x.reached(v, b, step{f.id, c, number, other}); x.broken != "" {
					return
				}
			}
		}
		w.step()
		if number > 500 {
			w.settle() // says so
		}
	}
	x.reached(w, left, step{from: f.id, choice: c})
}

// reached takes a state that may be new.
func (x *explorer) reached(w *world, left budget, by step) {
	if w.broken == "" {
		w.forget()
		key := x.canon.of(w, left)
		if _, ok := x.seen[key]; ok {
			x.spare = append(x.spare, w)
			return
		}
		x.seen[key] = struct{}{}
	}
	id := int32(len(x.parents))
	x.parents = append(x.parents, by)
	x.at = id
	if x.broken = w.broken; x.broken != "" {
		return
	}
	if x.broken = x.heals(w, int(id)); x.broken != "" {
		return
	}
	x.stopped = len(x.parents) >= x.limit
	x.next = append(x.next, frontier{w, left, id})
}

// copy is a clone in a world that is not needed any more.
func (x *explorer) copy(w *world) *world {
	if len(x.spare) == 0 {
		return w.clone()
	}
	c := x.spare[len(x.spare)-1]
	x.spare = x.spare[:len(x.spare)-1]
	w.cloneTo(c)
	return c
}

// heals tries some states for whether they recover, each in one of the ways.
func (x *explorer) heals(w *world, id int) string {
	if x.heal == 0 || id%x.heal != 0 {
		return ""
	}
	return x.tryHeal(w, healing(id/x.heal)%healings)
}

func (x *explorer) tryHeal(w *world, h healing) string {
	x.healed++
	c := x.copy(w)
	c.kinds = nil
	broken := c.recovers(h)
	x.spare = append(x.spare, c)
	if broken != "" {
		x.healing = 1 + int(h)
	}
	return broken
}

// history replays how the broken state was reached, one line for each thing that
// happens.
func (x *explorer) history() string {
	if x.early {
		return "on the way there"
	}
	var path []step
	for k := x.at; x.parents[k].from >= 0; k = x.parents[k].from {
		path = append(path, x.parents[k])
	}
	var lines []string
	w := x.start.clone()
	w.trace = func(format string, args ...any) {
		if line := fmt.Sprintf(format, args...); !dull(line) {
			lines = append(lines, line)
		}
	}
	for k := len(path) - 1; k >= 0; k-- {
		w.choose(path[k].choice)
		for number := uint16(1); len(w.queue) > 0 && w.broken == ""; number++ {
			switch {
			case number == path[k].number:
				w.choose(path[k].other)
			case number > 500:
				w.settle() // says so
			default:
				w.step()
			}
		}
	}
	if x.healing != 0 {
		w.recovers(healing(x.healing - 1))
	}
	if len(lines) > 260 {
		lines = append(append(lines[:220:220], "..."), lines[len(lines)-20:]...)
	}
	return strings.Join(lines, "\n")
}

// dull is what happens all the time.
func dull(line string) bool {
	for _, start := range []string{"beat ", "saw ", "data ", "up ", "tick at", "silence"} {
		if strings.HasPrefix(line, start) {
			return !*modelVerbose
		}
	}
	return strings.Contains(line, "query") && !*modelVerbose
}
