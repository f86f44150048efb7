// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"testing"
	"time"
)

var (
	walkSeed  = flag.Uint64("model.seed", 0, "run the walk of this seed only")
	walkCount = flag.Int("model.walks", 2000, "how many random walks")
)

// walkAgain are seeds that once found something. A seed leads another way once
// there are other starts or choices, so what it found is a scenario too: H3, H5,
// H6, H8, H9, H10, H19. The last one found a fault of the checker's.
var walkAgain = []uint64{3655932915013836678, 793, 2847690252868244393, 1598514004116396465, 8824753670902422937, 256503354280110109, 17000767166607182745, 13151062150972871673}

// TestModelWalks goes at random where the exploration does not reach: many faults
// in one history. It counts the kinds of transition that TestModel has not met,
// where that ran before.
func TestModelWalks(t *testing.T) {
	if *walkSeed != 0 {
		if broken := walk(*walkSeed, nil, t.Logf); broken != "" {
			t.Fatalf("seed %d: %s", *walkSeed, broken)
		}
		return
	}
	began, steps := time.Now(), 0
	found := map[string]uint64{}
	met := newKinds()
	for k := range *walkCount {
		seed := rand.Uint64()
		if k < len(walkAgain) {
			seed = walkAgain[k]
		}
		if broken := walk(seed, met, nil); broken != "" {
			key := broken[:min(40, len(broken))]
			if _, ok := found[key]; !ok {
				found[key] = seed
				fmt.Fprintf(os.Stderr, "walk: -args -model.seed %d\n", seed) // at once, whatever becomes of the log
				t.Errorf("walk %d, -args -model.seed %d: %s", k, seed, broken)
			}
			if len(found) > 5 {
				return
			}
		}
		steps++
	}
	fresh := modelKinds.add(met)
	t.Logf("| walks | %d | | | %d | %d | %.0f s |", steps, len(met.met), len(fresh), time.Since(began).Seconds())
	modelKinds.log(t, fresh)
	t.Logf("kinds that need 0, 1, 2, ... events: %v", modelKinds.byEvents())
	t.Logf("%d walks, %.0f/s", steps, float64(steps)/time.Since(began).Seconds())
}

func walk(seed uint64, met *kinds, trace func(string, ...any)) string {
	r := rand.New(rand.NewPCG(seed, 1))
	w := starts[r.IntN(len(starts))].world()
	w.trace, w.kinds = trace, met
	w.quietTicks = uint8(1 + r.IntN(5))
	b := budget{all: math.MaxUint8, faults: uint8(1 + r.IntN(5)), words: uint8(r.IntN(3)), writes: uint8(r.IntN(4)), disks: uint8(r.IntN(8) / 7)}
	var list []choice
	calm := 3 + r.IntN(60)
	late := r.IntN(2) == 0
	length := 100 + r.IntN(600)
	for range length {
		list = w.choices(b, list[:0])
		c := list[0]
		if r.IntN(calm) == 0 || len(w.aside) > 0 && r.IntN(20) == 0 {
			c = list[r.IntN(len(list))]
			for want := deed(r.IntN(len(deeds))); c.do != want && r.IntN(len(list)) > 0; { // of every kind as often
				c = list[r.IntN(len(list))]
			}
		}
		if late && len(w.queue) > 0 && weighty(&w.queue[0]) && len(w.aside) < maxAside && b.faults > 0 && r.IntN(3) == 0 {
			c = choice{do: delayNext}
		}
		b.take(c)
		if met != nil {
			met.events = math.MaxUint8 - b.all
		}
		w.choose(c)
		if w.broken != "" {
			return w.broken
		}
	}
	w.kinds = nil
	return w.recovers([...]healing{healAll, healAll, healAll, healNodes, healButBeta, healButAlpha}[r.IntN(6)])
}

// weighty are the messages that change who may serve: half of the walks hold
// them back, for that is where a rule about time is needed.
func weighty(e *event) bool {
	switch {
	case e.answer != nil:
		return e.answer.Granted
	case e.beat != nil:
		return e.beat.Teach != 0 || e.beat.Promise != 0
	}
	return e.request != nil
}

// pairWorld is PRIM and SECOND, alpha serving, with nothing under way.
func pairWorld(arbiter Arbiter) *world {
	w := newWorld(arbiter)
	w.start(alpha)
	w.start(beta)
	w.ticks(3)
	if err := w.command(alpha, CommandPrim); err != nil {
		panic(err)
	}
	w.ticks(12)
	if w.broken != "" || w.nodes[alpha].m.State() != StatePrim || w.nodes[beta].m.State() != StateSecond {
		panic("STUCK: no pair: " + w.broken + string(w.nodes[alpha].m.State()) + string(w.nodes[beta].m.State()))
	}
	return w
}
