// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vm

import (
	"testing"
	"time"

	"github.com/twinbd/twinbd/tests/harness"
)

// The ways in which a service leaves a node, one after the other on one pair, under
// a ledger: after each the other serves, everything that was acknowledged is there,
// and the first returns and follows.
func TestTakeover(t *testing.T) {
	c := newCluster(t, options{})
	l := c.newLedger(t)
	serves := c.alpha
	nothing := func(*node, testing.TB) {}
	for _, way := range []struct {
		name        string
		leave, mend func(*node, testing.TB)
	}{
		{"power cut", (*node).die, (*node).comeBack},
		{"processors stopped", (*node).freeze, (*node).thaw},
		{"process stopped", (*node).halt, (*node).resume},
		{"cut off", (*node).cutOff, (*node).rejoin},
		{"planned switch", (*node).leave, nothing},
	} {
		t.Run(way.name, func(t *testing.T) {
			fault := l.now()
			way.leave(serves, t)
			next := c.other(serves)
			t.Logf("a write acknowledged %v after it", l.waitMore(t, fault).Round(10*time.Millisecond))
			way.mend(serves, t)
			c.waitPair(t, next)
			l.check(t)
			serves = next
		})
		if t.Failed() {
			break // the next would begin from something else
		}
	}
}

func (n *node) freeze(t testing.TB) { n.pause(t) }
func (n *node) thaw(t testing.TB)   { n.unpause(t) }
func (n *node) halt(t testing.TB)   { n.stop(t) }
func (n *node) resume(t testing.TB) { n.goOn(t) }
func (n *node) cutOff(t testing.TB) { n.lan.isolate(n.name, true) }
func (n *node) rejoin(t testing.TB) { n.lan.isolate(n.name, false) }
func (n *node) leave(t testing.TB)  { n.must(t, "twinbd", "switch", serviceName) }

// One direction at a time. What the primary says no longer reaches its peer, or the
// other way round: it reaches the witness, so it goes on, and the peer comes back.
func TestOneWay(t *testing.T) {
	c := newCluster(t, options{})
	l := c.newLedger(t)
	for _, way := range [][2]string{{"alpha", "beta"}, {"beta", "alpha"}} {
		c.lan.cut(way[0], way[1], true)
		harness.Elapse(10 * time.Second)
		t.Logf("from %s to %s cut: a write that began 10 s later acknowledged after %v", way[0], way[1], l.waitMore(t, l.now()).Round(time.Millisecond))
		c.lan.cut(way[0], way[1], false)
		c.waitPair(t, c.alpha)
		l.check(t)
	}
}
