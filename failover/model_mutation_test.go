// SPDX-License-Identifier: Apache-2.0

//go:build mutation

package failover

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// rules are those whose loss the checker must notice, with the trace of the
// protocol's review from which each was made. Of two rules joined by "+" each
// makes up for the other: nothing misses the first alone.
var rules = []struct{ trace, rule string }{
	{"F1", "silence is checked again at use"},
	{"F1", "a holder that renewed is not taken over"},
	{"F2", "alone is given up before pair is asked"},
	{"F3", "alone needs no lease"},
	{"F4", "who does not hold a promise says so"},
	{"F5", "a bound node serves from nothing"},
	{"F5", "a promise's number is above all that was asked"},
	{"F6", "the record names who takes a handover"},
	{"F7", "a restarted holder inherits nothing"},
	{"F7", "the survivor's blocks win"},
	{"F7", "a promise's holder waits for the survivor"},
	{"F7", "who restarts waits for the survivor"},
	{"F9", "the right follows the disk"},
	{"F9", "a failed disk is no reason to lose writes"},
	{"F10", "both have lost the witness"},
	{"F12", "only a serving holder that hears renews"},
	{"F13", "a change names the epoch that it replaces + a change raises the epoch"},
	{"F14", "the peer learns the epoch before pair"},
	{"F14", "who takes over was in step"},
	{"F16", "a takeover leaves alone"},
	{"F16", "nobody takes over from alone"},
	{"F18", "the last word of a secondary is a promise"},
	{"F19", "a lease counts from the asking"},
	{"G1", "a resync needs the right to be alone"},
	{"G3", "a bound node repeats its promise"},
	{"G6", "only the very request is a repeat"},
	{"G7", "a claim leaves alone"},
	{"G8", "nobody lowers an epoch that he knows"},
	{"H8", "a promise's holder that restarted compares first"},
	{"20", "pair needs a lease"},
	{"20", "who is not the holder stops"},
	{"16", "a restarted witness waits"},
}

// kept are rules that nothing misses: a second line. If something does miss one,
// it belongs above.
var kept = []string{"an old request is void", "a restarted node follows nobody", "a node that is started again waits as one that restarted", "a volume is alone from when it is told"}

var mutationStates = flag.Int("mutation.states", 3000, "how many states to explore per start and bound before a walk")
var mutationWalks = flag.Int("mutation.walks", 2000, "how many walks then")

// TestMutations leaves out one rule after the other: the loss of each must break
// what must hold. It prints the table of docs/FAILURES.md.
func TestMutations(t *testing.T) {
	defer func() { mutations = nil }()
	if broken, where, _ := missed(nil); broken != "" {
		t.Fatalf("with every rule in place, %s: %s", where, broken) // else nothing below would mean anything
	}
	for _, r := range rules {
		t.Run(r.trace+" "+r.rule, func(t *testing.T) {
			began := time.Now()
			list := strings.Split(r.rule, " + ")
			without := missing(list[1:])
			mutations = list
			broken, where, states := missed(without)
			if broken == "" {
				t.Errorf("nothing misses the rule that %s, in %d states", r.rule, states)
				return
			}
			kind, _, _ := strings.Cut(broken, ":")
			t.Logf("| %s | %s | %s | %s | %d |", r.trace, r.rule, kind, where, states)
			t.Logf("%.1fs: %s", time.Since(began).Seconds(), broken)
		})
	}
	for _, rule := range kept {
		mutations = []string{rule}
		if broken, where, states := missed(nil); broken != "" {
			t.Errorf("kept as a second line, but missed: %s, %s: %s", rule, where, broken)
		} else {
			t.Logf("nothing misses the rule that %s, in %d states", rule, states)
		}
	}
}

// missing are the starts from which these rules are missed by themselves, and
// which show nothing of another's.
func missing(list []string) map[string]bool {
	from := map[string]bool{}
	if len(list) == 0 {
		return from
	}
	mutations = list
	for events := uint8(0); events <= mutationEvents; events++ {
		for again := true; again; {
			again = false
			for k, x := range exploreFrom(from, mutationLimits(), 5, mutationBudget(events)) {
				if x != nil && x.broken != "" {
					from[starts[k].name], again = true, true
				}
			}
		}
	}
	return from
}

const mutationEvents = 3

func mutationLimits() []int { return slices.Repeat([]int{*mutationStates}, len(starts)) }

func mutationBudget(events uint8) budget {
	return budget{all: events, faults: events, words: 1, writes: 1, disks: 1}
}

// missed returns the first invariant that breaks, where that was, and after how
// many states or walks.
func missed(without map[string]bool) (broken, where string, states int) {
	for events := uint8(0); events <= mutationEvents; events++ {
		for k, x := range exploreFrom(without, mutationLimits(), 5, mutationBudget(events)) {
			if x == nil {
				continue
			}
			if states += len(x.parents); x.broken != "" {
				where = fmt.Sprintf("%d events from %s", events, starts[k].name)
				if x.early {
					where = "on the way to " + starts[k].name
				}
				return x.broken, where, states
			}
		}
	}
	for seed := range uint64(*mutationWalks) {
		if len(without) > 0 {
			break
		}
		states++
		if broken := walkOrPanic(seed); broken != "" {
			return broken, fmt.Sprintf("the walk of seed %d", seed), states
		}
	}
	return "", "", states
}

// walkOrPanic also takes what breaks on the way to the start.
func walkOrPanic(seed uint64) (broken string) {
	defer func() {
		switch p := recover().(type) {
		case nil, noStart:
		default:
			broken = fmt.Sprint(p)
		}
	}()
	return walk(seed, nil, nil)
}
