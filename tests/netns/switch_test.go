// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netns

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/tests/harness"
)

// A planned switch, there and back, under load (rule 17).
func TestRule17Switch(t *testing.T) {
	c := newCluster(t, options{})
	k := c.newClient(t, 1)
	for _, n := range []*node{c.alpha, c.beta} {
		fault := k.now()
		n.mustAct(t, "switch")
		k.waitServed(t, c.other(n), fault)
		k.within(t, fault, 700*time.Millisecond)
		c.waitPair(t, c.other(n))
		k.settle(t)
	}
}

// Stopping costs no timeout: the secondary promises, the primary hands over (rule
// 24).
func TestRule24Stop(t *testing.T) {
	c := newCluster(t, options{pace: `"normal"`})
	k := c.newClient(t, 1)
	const limit = 2 * time.Second // the timeout is 3 s

	fault := k.now()
	c.beta.mustAct(t, "stop")
	c.beta.waitState(t, control.Stop)
	c.alpha.waitState(t, control.Alone)
	k.waitServed(t, c.alpha, k.now())
	k.within(t, fault, limit)
	c.beta.mustAct(t, "start")
	c.waitPair(t, c.alpha)

	fault = k.now()
	c.alpha.mustAct(t, "stop")
	k.waitServed(t, c.beta, fault)
	k.within(t, fault, limit)
	c.alpha.waitState(t, control.Stop)
	c.alpha.mustAct(t, "start")
	c.waitPair(t, c.beta)
}

// The same when the processes are told to end.
func TestRule24Terminate(t *testing.T) {
	c := newCluster(t, options{pace: `"normal"`})
	k := c.newClient(t, 1)
	const limit = 2 * time.Second

	fault := k.now()
	c.beta.stop(t)
	c.alpha.waitState(t, control.Alone)
	k.waitServed(t, c.alpha, k.now())
	k.within(t, fault, limit)
	c.beta.start(t)
	c.waitPair(t, c.alpha)

	fault = k.now()
	c.alpha.signal(t, syscall.SIGTERM)
	k.waitServed(t, c.beta, fault)
	k.within(t, fault, limit)
	c.alpha.stop(t)
	c.alpha.start(t)
	c.waitPair(t, c.beta)
}

// Both are stopped, by one word each, and started again.
func TestRule24StopAll(t *testing.T) {
	c := newCluster(t, options{})
	k := c.newClient(t, 1)
	if err := c.alpha.act("stop", map[string]string{"all": "true"}); err != nil {
		t.Fatal(err)
	}
	c.beta.mustAct(t, "stop")
	for _, n := range c.nodes() {
		n.waitState(t, control.Stop)
	}
	for _, n := range c.nodes() {
		n.mustAct(t, "start")
	}
	k.waitHealed(t)
}

// Both hosts die at once and return: who serves is found out from the record, and
// nothing is lost (rule 22).
func TestRule22BothDie(t *testing.T) {
	c := newCluster(t, options{})
	k := c.newClient(t, 1)
	c.alpha.unplug(t)
	c.beta.unplug(t)
	for _, n := range c.nodes() {
		n.kill(t)
		n.space.drop(t, virtual)
	}
	for _, n := range c.nodes() {
		n.boot(t)
	}
	k.waitHealed(t)
}

// Both hosts die in pair, and only the secondary returns: it has everything, and
// takes over. The other, when it returns, follows.
func TestRule22OnlySecondaryReturns(t *testing.T) {
	c := newCluster(t, options{})
	k := c.newClient(t, 1)
	c.alpha.unplug(t)
	c.beta.unplug(t)
	for _, n := range c.nodes() {
		n.kill(t)
		n.space.drop(t, virtual)
	}
	c.beta.boot(t)
	k.waitServed(t, c.beta, k.now())
	c.alpha.boot(t)
	c.waitPair(t, c.beta)
}

// The primary went on alone, and both died. Only the one that lacks writes returns:
// it waits, says for what, and leaves by itself when that comes (rule 22).
func TestRule22StaleWaits(t *testing.T) {
	c := newCluster(t, options{})
	k := c.newClient(t, 1)
	c.beta.die(t)
	c.alpha.waitState(t, control.Alone)
	k.settle(t)
	c.alpha.die(t)
	c.beta.boot(t)
	c.beta.waitReason(t, "may have writes that this node lacks")
	harness.Elapse(3 * time.Second)
	if s, err := c.beta.status(); err != nil || s.State != control.Wait {
		t.Errorf("beta is %v, %v", s, err)
	}
	if err := c.beta.act("prim", nil); err == nil {
		t.Error("prim was not refused")
	} else if _, ok := errors.AsType[*control.Refusal](err); !ok {
		t.Errorf("prim: %v", err)
	}
	c.alpha.boot(t)
	k.waitServed(t, c.alpha, k.now())
	c.waitPair(t, c.alpha)
}
