// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netns

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/tests/harness"
)

// Two servers, and no witness (rule 19).

// newPinging is a cluster with a router in place of a witness.
func newPinging(t *testing.T) *cluster {
	t.Helper()
	need(t)
	c := newCluster(t, options{arbiter: `ping = ["10.77.0.254"]`, idle: true})
	c.lan.connect(t, newSpace(t, "router"), 0, 254)
	c.begin(t)
	return c
}

func TestPingTakeover(t *testing.T) {
	c := newPinging(t)
	k := c.newClient(t, 1)
	fault := k.now()
	c.alpha.die(t)
	k.waitServed(t, c.beta, fault)
	t.Logf("without an acknowledged write for %v", k.gap(fault))
	c.alpha.boot(t)
	c.waitPair(t, c.beta)
	c.beta.waitReason(t, "both nodes may serve")
}

func TestPingSecondaryDies(t *testing.T) {
	c := newPinging(t)
	k := c.newClient(t, 1)
	c.beta.die(t)
	c.alpha.waitState(t, control.Alone)
	k.waitServed(t, c.alpha, k.now())
	c.beta.boot(t)
	c.waitPair(t, c.alpha)
}

// A primary that reaches neither peer nor router is cut off: it freezes, and the
// other takes over.
func TestPingIsolated(t *testing.T) {
	c := newPinging(t)
	k := c.newClient(t, 1)
	fault := k.now()
	c.lan.part(t, "alpha", "beta")
	c.lan.part(t, "alpha", "router")
	taken := k.waitServed(t, c.beta, fault)
	c.alpha.waitReason(t, "clients wait")
	c.lan.heal(t)
	c.waitPair(t, c.beta)
	k.settle(t)
	k.silent(t, c.alpha, taken)
}

// The nodes do not hear each other's beats, but the secondary sees that the primary
// has the address: it stays where it is.
func TestPingSeesTheAddress(t *testing.T) {
	c := newPinging(t)
	k := c.newClient(t, 1)
	c.lan.mute(t, "alpha", "beta")
	c.alpha.waitState(t, control.Alone)
	harness.Elapse(4 * time.Second)
	k.waitServed(t, c.alpha, k.now())
	k.silent(t, c.beta, 0)
	c.lan.heal(t)
	c.waitPair(t, c.alpha)
}

// The partition that a router cannot decide: nothing passes between the nodes, and
// both reach it. Both serve, as the documentation says. It is found when they meet,
// and nothing is discarded.
func TestPingPartition(t *testing.T) {
	c := newPinging(t)
	k := c.newClient(t, 1)
	k.split = true
	c.lan.part(t, "alpha", "beta")
	for _, n := range c.nodes() {
		n.waitState(t, control.Alone)
	}
	// Whoever the client's packets reach has writes that the other lacks; the other
	// gets some as well.
	c.lan.part(t, "client", "alpha")
	k.waitServed(t, c.beta, k.now())
	c.lan.heal(t)
	c.lan.part(t, "alpha", "beta")
	c.lan.part(t, "client", "beta")
	k.waitServed(t, c.alpha, k.now())
	k.stop()
	before := make(map[string]string)
	for _, n := range c.nodes() {
		before[n.name] = harness.Checksum(t, n.path("data.img"), volumeSize)
	}
	if before["alpha"] == before["beta"] {
		t.Error("the disks are equal: this was no split")
	}
	c.lan.heal(t)
	for _, n := range c.nodes() { // nobody is stopped: who is right only the operator knows
		n.waitReason(t, "both nodes serve")
	}
	c.beta.mustAct(t, "stop")
	c.beta.mustAct(t, "start")
	for _, n := range c.nodes() {
		n.waitReason(t, "writes that the other lacks")
	}
	for _, n := range c.nodes() {
		if harness.Checksum(t, n.path("data.img"), volumeSize) != before[n.name] {
			t.Errorf("the disk of %s was changed", n.name)
		}
	}
}

// newFencing is a cluster in which a script has the last word on a silent peer.
func newFencing(t *testing.T, script string) *cluster {
	t.Helper()
	need(t)
	dir := t.TempDir()
	file := dir + "/fence"
	c := newCluster(t, options{arbiter: "none", service: fmt.Sprintf("fence = %q", file), idle: true})
	text := fmt.Sprintf("#!/bin/sh\npid=%s/$TWINBD_PEER.pid\n%s\n", c.dir, script)
	if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	c.begin(t)
	return c
}

// off kills the peer's process, and succeeds when that is surely gone.
const off = `kill -9 $(cat $pid) 2>/dev/null
while kill -0 $(cat $pid) 2>/dev/null; do sleep 0.05; done
exit 0`

func TestFenceTakeover(t *testing.T) {
	c := newFencing(t, off)
	k := c.newClient(t, 1)
	fault := k.now()
	c.alpha.die(t)
	k.waitServed(t, c.beta, fault)
	t.Logf("without an acknowledged write for %v", k.gap(fault))
	c.alpha.boot(t)
	c.waitPair(t, c.beta)
}

// The nodes are cut off from each other: the primary is quicker, and goes on when
// the other is off.
func TestFencePartition(t *testing.T) {
	c := newFencing(t, off)
	k := c.newClient(t, 1)
	c.lan.part(t, "alpha", "beta")
	harness.WaitFor(t, "beta to be fenced", patience, func() error {
		if c.beta.running() {
			return fmt.Errorf("it runs")
		}
		return nil
	})
	k.waitServed(t, c.alpha, k.now())
	k.silent(t, c.beta, 0)
	c.lan.heal(t)
	c.beta.start(t)
	c.waitPair(t, c.alpha)
}

// A fence that fails proves nothing: the secondary does not take over, says why,
// and a primary that lost its peer lets clients wait.
func TestFenceFails(t *testing.T) {
	c := newFencing(t, "echo no answer from the power switch; exit 1")
	k := c.newClient(t, 1)
	c.alpha.die(t)
	c.beta.waitReason(t, "no answer from the power switch")
	harness.Elapse(3 * time.Second)
	k.silent(t, c.beta, 0)
	c.alpha.boot(t)
	k.waitHealed(t)
}

// With neither witness nor fence the primary goes on alone, and nobody takes over
// by himself: a dead one is waited for.
func TestNobody(t *testing.T) {
	c := newCluster(t, options{arbiter: "none"})
	k := c.newClient(t, 1)
	c.beta.die(t)
	c.alpha.waitState(t, control.Alone)
	k.waitServed(t, c.alpha, k.now())
	c.beta.boot(t)
	c.waitPair(t, c.alpha)
	c.alpha.die(t)
	c.beta.waitReason(t, "primforce")
	harness.Elapse(3 * time.Second)
	k.silent(t, c.beta, 0)
	c.alpha.boot(t)
	// Back, it goes on with what beta copies to it; or it gives beta the service, which
	// kept running and has everything, when meeting that takes too long (rule 22).
	k.waitHealed(t)
}
