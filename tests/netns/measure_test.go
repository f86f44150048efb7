// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netns

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/tests/harness"
)

var (
	measureRuns     = flag.Int("measure.runs", 0, "takeovers of each kind to measure (`make bench-failover`)")
	measureSwitches = flag.Int("measure.switches", 50, "planned switches to measure")
	measureCheck    = flag.Bool("measure.check", false, "fail where a target is missed")
)

// TestMeasure measures what a client sees of a failover, and of what it is made up:
// from the fault to the first write that the new primary acknowledges.
func TestMeasure(t *testing.T) {
	if *measureRuns == 0 {
		t.Skip("not asked for: `make bench-failover` runs it")
	}
	for _, s := range []scenario{
		{"kill-fast", options{}, (*node).kill, (*node).startAgain, *measureRuns, 1500 * time.Millisecond, 1},
		{"host-fast", options{}, (*node).die, (*node).boot, *measureRuns, 1500 * time.Millisecond, 1},
		{"kill-normal", options{pace: `"normal"`}, (*node).kill, (*node).startAgain, *measureRuns, 4 * time.Second, 1},
		{"switch", options{}, (*node).switchAway, nil, *measureSwitches, 100 * time.Millisecond, 0.99},
	} {
		t.Run(s.name, func(t *testing.T) { s.measure(t) })
	}
}

// scenario is one kind of failover, made again and again.
type scenario struct {
	name    string
	options options
	fault   func(*node, testing.TB)
	repair  func(*node, testing.TB) // nil: nothing is broken
	runs    int
	target  time.Duration // of the client's gap
	share   float64       // of the runs that are to be within it
}

func (n *node) startAgain(t testing.TB) { n.start(t) }

// switchAway asks for a switch until it is not refused: a busy machine may have
// lost the pair for a moment.
func (n *node) switchAway(t testing.TB) {
	t.Helper()
	harness.WaitFor(t, "a switch away from "+n.name, patience, func() error {
		err := n.act("switch", nil)
		if err != nil && n.cluster.other(n).is(control.Primary) == nil {
			return nil
		}
		return err
	})
}

func (s *scenario) measure(t *testing.T) {
	c := newCluster(t, s.options)
	k := c.newClient(t, 1)
	primary := c.alpha
	var gaps []time.Duration
	parts := make(map[string][]time.Duration)
	for range s.runs {
		fault := k.now()
		s.fault(primary, t)
		next := c.other(primary)
		end := k.waitServed(t, next, fault)
		gaps = append(gaps, k.gap(fault))
		for _, p := range next.parts(t, k.began.Add(fault), k.began.Add(end)) {
			parts[p.name] = append(parts[p.name], p.took)
		}
		if s.repair != nil {
			s.repair(primary, t)
		}
		c.waitPair(t, next)
		primary = next
		k.settle(t)
	}
	var table strings.Builder
	fmt.Fprintf(&table, "| %s, %d runs, ms | min | median | p90 | p99 | max |\n| --- | --- | --- | --- | --- | --- |\n", s.name, s.runs)
	row(&table, "without an acknowledged write", gaps)
	for _, name := range partNames {
		if len(parts[name]) > 0 {
			row(&table, name, parts[name])
		}
	}
	t.Logf("\n%s", table.String())
	if at := quantile(gaps, s.share); at > s.target {
		text := fmt.Sprintf("%s: %v, and the target is %v", s.name, at.Round(time.Millisecond), s.target)
		if *measureCheck {
			t.Error(text)
		} else {
			t.Log("target missed: " + text)
		}
	}
}

// part is a stretch of a failover, as the new primary's event log has it.
type part struct {
	name string
	took time.Duration
}

// partNames are the parts in their order. Each lasts from the one before it.
var partNames = []string{
	"… fault to the right to serve", "… to the volumes serving", "… to the address taken", "… to the first write acknowledged",
}

// parts takes the failover that happened in a time apart.
func (n *node) parts(t testing.TB, from, to time.Time) (all []part) {
	t.Helper()
	moments := make([]time.Time, 3)
	for _, e := range n.events(t) {
		if e.Time.Before(from) || e.Time.After(to) {
			continue
		}
		first := func(i int, is bool) {
			if is && moments[i].IsZero() {
				moments[i] = e.Time
			}
		}
		first(0, e.Kind == "epoch")
		first(1, e.Kind == "role" && e.New == "primary")
		first(2, e.Kind == "step" && e.Old == "addresses" && e.New == "up")
	}
	last := from
	for i, at := range append(moments, to) {
		if at.IsZero() {
			continue // the client was served before the log had it
		}
		all = append(all, part{partNames[i], at.Sub(last)})
		last = at
	}
	return all
}

func row(b *strings.Builder, name string, took []time.Duration) {
	fmt.Fprintf(b, "| %s |", name)
	for _, share := range []float64{0, 0.5, 0.9, 0.99, 1} {
		fmt.Fprintf(b, " %.1f |", float64(quantile(took, share))/float64(time.Millisecond))
	}
	b.WriteByte('\n')
}

// quantile is the least value that a share of all do not exceed.
func quantile(all []time.Duration, share float64) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	at := int(share*float64(len(sorted))+0.999999) - 1
	return sorted[min(max(at, 0), len(sorted)-1)]
}

func TestQuantile(t *testing.T) {
	all := make([]time.Duration, 50)
	for i := range all {
		all[i] = time.Duration(50 - i)
	}
	for share, want := range map[float64]time.Duration{0: 1, 0.5: 25, 0.9: 45, 0.99: 50, 1: 50} {
		if got := quantile(all, share); got != want {
			t.Errorf("quantile %v is %d, not %d", share, got, want)
		}
	}
}
