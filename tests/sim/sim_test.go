// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	seedFlag = flag.Uint64("seed", 0, "run the schedule of this seed only, and tell what happens in it")
	keepFlag = flag.String("sim.keep", "", "with -seed: only the faults of these numbers happen, such as 1,4; none for no fault")
	opsFlag  = flag.Int("sim.ops", 0, "with -seed: no more than so many requests")
	timeFlag = flag.Duration("sim.time", 0, "run fresh seeds for so long")
	lessFlag = flag.Duration("sim.shrink", 20*time.Second, "look for so long for a smaller schedule that fails")
)

// TestMain lets garbage lie for longer: worlds make much of it, and live shortly.
func TestMain(m *testing.M) {
	debug.SetGCPercent(400)
	os.Exit(m.Run())
}

// TestSim runs the seed that was asked for; or fresh ones for as long as was asked,
// else a few.
func TestSim(t *testing.T) {
	switch {
	case *seedFlag != 0:
		repeat(t, Options{Seed: *seedFlag, Keep: kept(t), Ops: *opsFlag})
	case *timeFlag > 0:
		end := time.Now().Add(*timeFlag)
		many(t, func(int) (uint64, bool) { return rand.Uint64(), time.Now().Before(end) })
	default:
		many(t, func(i int) (uint64, bool) { return rand.Uint64(), i < fresh })
	}
}

// TestSeeds runs every seed that ever failed. The file says what each found.
func TestSeeds(t *testing.T) {
	seeds := oldSeeds(t)
	many(t, func(i int) (uint64, bool) {
		if i >= len(seeds) {
			return 0, false
		}
		return seeds[i], true
	})
}

// TestSameSeedSameTranscript: a seed says all; without that, none is worth keeping.
func TestSameSeedSameTranscript(t *testing.T) {
	seen := make(map[uint64]uint64)
	for seed := uint64(1); seed <= min(4, fresh/3); seed++ {
		first, second := Run(Options{Seed: seed}), Run(Options{Seed: seed, Trace: true})
		if first.Hash != second.Hash || first.Stats != second.Stats {
			t.Errorf("seed %d: transcripts %x and %x, %d and %d events", seed, first.Hash, second.Hash, first.Stats.Events, second.Stats.Events)
		}
		if other, ok := seen[first.Hash]; ok {
			t.Errorf("seeds %d and %d have one transcript", seed, other)
		}
		seen[first.Hash] = seed
	}
}

// many runs schedules on all processors: worlds share nothing. next gives the seed
// of a number, until there is none.
func many(t *testing.T, next func(i int) (seed uint64, ok bool)) {
	var (
		mu    sync.Mutex
		wg    sync.WaitGroup
		sum   Stats
		count int
		began = time.Now()
	)
	take := func() (uint64, bool) {
		mu.Lock()
		defer mu.Unlock()
		if t.Failed() {
			return 0, false
		}
		count++
		return next(count - 1)
	}
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for seed, ok := take(); ok; seed, ok = take() {
				r := Run(Options{Seed: seed})
				mu.Lock()
				sum.Add(r.Stats)
				mu.Unlock()
				if r.Failure != "" {
					explain(t, Options{Seed: seed}, r)
				}
			}
		})
	}
	wg.Wait()
	report(t, sum, time.Since(began))
}

func report(t *testing.T, s Stats, took time.Duration) {
	per := func(n int) float64 { return float64(n) / took.Seconds() }
	t.Logf("%d schedules, %d requests, %d faults (%d of them in a handshake or a resync), %d events in %v on %d processors",
		s.Schedules, s.Ops, s.Faults, s.Aimed, s.Events, took.Round(time.Millisecond), runtime.GOMAXPROCS(0))
	t.Logf("%.1f schedules/s, %.0f requests/s, %.1f faults/s; %d looks at Cover, %d resyncs, %d verifies, %d times unflushed writes at risk, %d lies excused",
		per(s.Schedules), per(s.Ops), per(s.Faults), s.Covers, s.Resyncs, s.Verifies, s.Losses, s.Excused)
	var kinds []string
	for k, n := range s.Kinds {
		kinds = append(kinds, fmt.Sprintf("%v %d", faultKind(k), n))
	}
	t.Logf("faults: %s", strings.Join(kinds, ", "))
}

// explain prints the seed first, then looks for a smaller schedule that fails alike.
// How to repeat it is the last line too: of a long log, the end is kept.
func explain(t *testing.T, opt Options, r Result) {
	t.Errorf("seed %d: %s\nrepeat: go test ./tests/sim -run TestSim -seed %d", opt.Seed, r.Failure, opt.Seed)
	if *lessFlag == 0 {
		return
	}
	small := Shrink(opt, r, *lessFlag)
	small.Trace = true
	r = Run(small)
	t.Errorf("seed %d, smaller:\n%s\n%s\n%s\nrepeat: go test ./tests/sim -run TestSim -seed %d -sim.keep %s -sim.ops %d",
		small.Seed, strings.Join(r.Plan, "\n"), strings.Join(last(r.Trace, 120), "\n"), r.Failure, small.Seed, numbers(small.Keep), small.Ops)
}

func last(lines []string, n int) []string { return lines[max(0, len(lines)-n):] }

// repeat runs one schedule, and tells all of it.
func repeat(t *testing.T, opt Options) {
	opt.Trace = true
	r := Run(opt)
	t.Logf("seed %d\n%s\n%s", opt.Seed, strings.Join(r.Plan, "\n"), strings.Join(r.Trace, "\n"))
	t.Logf("transcript %016x, %d requests, %d faults", r.Hash, r.Stats.Ops, r.Stats.Faults)
	if r.Failure != "" {
		t.Errorf("seed %d: %s", opt.Seed, r.Failure)
	}
}

func numbers(list []int) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Trim(strings.Join(strings.Fields(fmt.Sprint(list)), ","), "[]")
}

func kept(t *testing.T) []int {
	switch *keepFlag {
	case "":
		return nil
	case "none":
		return []int{}
	}
	var list []int
	for word := range strings.SplitSeq(*keepFlag, ",") {
		n, err := strconv.Atoi(word)
		if err != nil {
			t.Fatalf("-sim.keep: %v", err)
		}
		list = append(list, n)
	}
	return list
}

// oldSeeds reads testdata/seeds: one seed on a line, and what it found.
func oldSeeds(t *testing.T) (seeds []uint64) {
	text, err := os.ReadFile("testdata/seeds")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		word, what, _ := strings.Cut(strings.TrimSpace(line), " ")
		if word == "" || word == "#" {
			continue
		}
		seed, err := strconv.ParseUint(word, 10, 64)
		if err != nil || strings.TrimSpace(what) == "" || slices.Contains(seeds, seed) {
			t.Fatalf("testdata/seeds: %q is not a new seed and what it found", line)
		}
		seeds = append(seeds, seed)
	}
	return seeds
}
