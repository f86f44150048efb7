// SPDX-License-Identifier: Apache-2.0

//go:build mutation

package mirror

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// rules are those of the data path whose loss must be noticed, by the number under
// which docs/ARCHITECTURE.md has them.
var rules = []struct {
	number int
	rule   string
}{
	{1, "intent before data"},
	{1, "an intent for each region"},
	{2, "an acknowledgement waits for the peer"},
	{2, "the peer acknowledges what its disk has"},
	{3, "a flush waits for the peer"},
	{3, "a flush is durable at the peer"},
	{3, "FUA is a flush"},
	{4, "what was not flushed is dirty"},
	{4, "what is being flushed is dirty"},
	{4, "what is in flight is dirty"},
	{4, "a write alone is dirty"},
	{5, "part of a block counts as all of it"},
	{5, "a mark goes when its copy is durable"},
	{5, "marks that are left are copied"},
	{5, "an intent goes after a flush of both"},
	{5, "an intent goes when its bits are durable"},
	{6, "intents found at start are dirty"},
	{6, "the union is durable first"},
	{7, "overlapping requests are ordered"},
	{7, "a read waits for writes in flight"},
	{7, "a copy holds the range lock"},
	{8, "a failed flush at the peer is a failed disk"},
	{8, "failed metadata is a failed disk"},
	{9, "a new generation before a lone acknowledgement"},
	{9, "a new generation is durable first"},
	{12, "a target is inconsistent"},
	{12, "a target adopts the generation at the end"},
	{14, "a frame carries its session"},
}

// byTest are those that one test shows, because chance seldom does.
var byTest = []struct {
	number     int
	rule, test string
}{
	{2, "who serves no longer acknowledges nothing", "TestDemoteAcknowledgesNothing"},
	{4, "a hosted write is dirty", "TestRule04AHostMarksWhatItWrites"},
	{5, "a source flushes first", "TestRule05ASourceFlushesFirst"},
	{5, "an intent found at start stays until a flush", "TestRule05WhatAnEarlierProcessWrote"},
	{7, "who takes over waits for what was under way", "TestPromoteWaitsForTheOldPrimary"},
	{8, "a failed flush is a failed disk", "TestRule08AFailedFlushIsAFailedDisk"},
	{8, "a restarted host is not taken for whole", "TestRule08ARestartedHostIsNotTakenForWhole"},
	{8, "the host marks what the failed disk may lack", "TestRule08AFailedDiskIsNotTakenAtItsWord"},
	{9, "a host begins a generation", "TestRule09AHostParts"},
	{9, "flushed before it parts again", "TestRule09FlushedBeforeItPartsAgain"},
	{9, "the base goes before the end of a resync", "TestRule09AfterALostFinish"},
	{10, "flushed before it asks to be alone", "TestRule10AloneByGrantOnly"},
	{10, "a right before a lone acknowledgement", "TestRule10AloneWhileCopying"},
	{13, "intents alternate", "TestScenarios/06-torn-intents"},
	{14, "a session begins when the last has ended", "TestRule14OneSession"},
	{18, "a resync needs the right to be alone", "TestRule18AResyncNeedsTheRight"},
	{22, "the newer record decides", "TestDecide"},
	{22, "who kept running in step is preferred", "TestRule10OfTwoEqualsEitherMayServe"},
}

var mutationSchedules = flag.Int("mutation.schedules", 200, "after how many schedules a rule that is left out must have been missed")

func init() {
	flag.StringVar(&mutation, "mutation", "", "leave out this rule, to see which other tests miss it")
}

// expecting is a tester who expects a failure.
type expecting struct{}

func (expecting) Helper() {}
func (expecting) Fatalf(format string, args ...any) {
	first, _, _ := strings.Cut(fmt.Sprintf(format, args...), "\n")
	panic(broken(first))
}

// breaks plays something and returns what broke; empty if nothing did.
func breaks(play func(tester)) (what string) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case broken:
			what = string(p)
		default:
			what = fmt.Sprintf("panic: %v", p)
		}
	}()
	play(expecting{})
	return ""
}

// missed runs fresh schedules until one fails.
func missed() (what string, schedules int) {
	for schedules = 1; schedules <= *mutationSchedules; schedules++ {
		seed := rand.Uint64()
		if what = breaks(func(t tester) { schedule(t, seed) }); what != "" {
			return what, schedules
		}
	}
	return "", schedules - 1
}

// told plays the scenarios until one breaks what must hold; a transcript that reads
// otherwise does not count.
func told() (what, name string) {
	files, _ := filepath.Glob("testdata/scenarios/*.txt")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err.Error(), file
		}
		if what = breaks(func(t tester) { transcript(t, string(text)) }); what != "" {
			return what, strings.TrimSuffix(filepath.Base(file), ".txt")
		}
	}
	return "", ""
}

// TestMutations leaves out one rule after the other: the seeded simulation must miss
// each, or the test that is named must fail. It prints the table of docs/FAILURES.md.
func TestMutations(t *testing.T) {
	defer func() { mutation = "" }()
	for _, r := range rules {
		t.Run(r.rule, func(t *testing.T) {
			mutation = r.rule
			began := time.Now()
			_, scenario := told()
			what, schedules := missed()
			if what == "" {
				t.Errorf("no schedule of %d misses it; a scenario that does: %q", schedules, scenario)
				return
			}
			t.Logf("| %d | %s | %d | %s |", r.number, r.rule, schedules, scenario)
			t.Logf("%.1fs: %s", time.Since(began).Seconds(), what)
		})
	}
	for _, r := range byTest {
		t.Run(r.rule, func(t *testing.T) {
			out, err := exec.Command(os.Args[0], "-test.run", "^"+strings.ReplaceAll(r.test, "/", "$/^")+"$", "-mutation", r.rule).CombinedOutput()
			if err == nil || !strings.Contains(string(out), "--- FAIL: ") {
				t.Errorf("%s passes without it: %v\n%s", r.test, err, out)
			}
		})
	}
}
