// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netns

import (
	"os"
	"testing"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/tests/harness"
)

// The witness is lost, then the secondary: the primary goes on by the promise;
// everything returns, and so does the pair (rule 19).
func TestRule19WitnessLost(t *testing.T) {
	c := newCluster(t, options{})
	k := c.newClient(t, 1)
	fault := k.now()
	c.witness.kill(t)
	c.beta.waitReason(t, "has promised not to serve")
	k.waitServed(t, c.alpha, k.now())
	k.within(t, fault, 700*time.Millisecond)
	c.beta.die(t)
	c.alpha.waitState(t, control.Alone)
	k.waitServed(t, c.alpha, k.now())
	c.witness.start(t)
	harness.Elapse(3 * time.Second)
	k.waitServed(t, c.alpha, k.now())
	c.beta.boot(t)
	c.waitPair(t, c.alpha)
	fault = k.now()
	c.alpha.die(t) // the pair is a real one: the other takes over
	k.waitServed(t, c.beta, fault)
}

// A switch while the witness is away is a promise (rule 19).
func TestRule19SwitchWithoutWitness(t *testing.T) {
	c := newCluster(t, options{})
	k := c.newClient(t, 1)
	c.witness.kill(t)
	c.beta.waitReason(t, "has promised not to serve")
	fault := k.now()
	c.alpha.mustAct(t, "switch")
	k.waitServed(t, c.beta, fault)
	c.witness.start(t)
	c.waitPair(t, c.beta)
	harness.Elapse(2 * time.Second)
	fault = k.now()
	c.beta.die(t)
	k.waitServed(t, c.alpha, fault)
}

// Peer and witness are lost at once: clients wait, and nothing fails. When the
// witness is back the primary goes on.
func TestRule19NobodyToAsk(t *testing.T) {
	c := newCluster(t, options{})
	k := c.newClient(t, 1)
	c.beta.die(t)
	c.witness.kill(t)
	c.alpha.waitReason(t, "clients wait")
	c.witness.start(t)
	k.waitServed(t, c.alpha, k.now())
	c.beta.boot(t)
	c.waitPair(t, c.alpha)
}

// The witness restarts, and the primary dies at that moment: the takeover waits
// until no lease can be left that the witness has forgotten, and comes.
func TestRule16WitnessRestarts(t *testing.T) {
	c := newCluster(t, options{})
	k := c.newClient(t, 1)
	c.witness.kill(t)
	c.witness.start(t)
	fault := k.now()
	c.alpha.die(t)
	k.waitServed(t, c.beta, fault)
	t.Logf("without an acknowledged write for %v", k.gap(fault))
}

// The witness is cut off from both, and comes back.
func TestRule19WitnessPartition(t *testing.T) {
	c := newCluster(t, options{})
	k := c.newClient(t, 1)
	fault := k.now()
	c.lan.part(t, "alpha", "witness")
	c.lan.part(t, "beta", "witness")
	c.beta.waitReason(t, "has promised not to serve")
	k.waitServed(t, c.alpha, k.now())
	k.within(t, fault, 700*time.Millisecond)
	c.lan.heal(t)
	c.beta.waitFor(t, "be free", func(s *control.ServiceStatus) error {
		return c.beta.is(control.Secondary)
	})
	harness.Elapse(2 * time.Second)
	fault = k.now()
	c.alpha.die(t)
	k.waitServed(t, c.beta, fault)
}

// The witness's directory is restored from a backup that names another holder. The
// nodes know better: nothing changes for clients, and the record catches up.
func TestStaleWitness(t *testing.T) {
	c := newCluster(t, options{})
	k := c.newClient(t, 1)
	c.witness.stop(t)
	if err := os.CopyFS(c.path("backup"), os.DirFS(c.path("witness"))); err != nil {
		t.Fatal(err)
	}
	c.witness.start(t)
	harness.Elapse(2 * time.Second)
	c.waitPair(t, c.alpha)
	fault := k.now()
	c.alpha.mustAct(t, "switch")
	k.waitServed(t, c.beta, fault)
	c.waitPair(t, c.beta)

	c.witness.stop(t)
	if err := os.RemoveAll(c.path("witness")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(c.path("witness"), os.DirFS(c.path("backup"))); err != nil {
		t.Fatal(err)
	}
	fault = k.now()
	c.witness.start(t)
	harness.Elapse(4 * time.Second)
	k.waitServed(t, c.beta, k.now())
	k.within(t, fault, 700*time.Millisecond)
	k.silent(t, c.alpha, fault)
	c.beta.die(t) // the record has caught up, so that this is an ordinary takeover
	k.waitServed(t, c.alpha, k.now())
	c.beta.boot(t)
	c.waitPair(t, c.alpha)
}

// The witness's directory is lost. Both nodes know the record, and agree.
func TestEmptyWitness(t *testing.T) {
	c := newCluster(t, options{})
	k := c.newClient(t, 1)
	c.witness.stop(t)
	if err := os.RemoveAll(c.path("witness")); err != nil {
		t.Fatal(err)
	}
	fault := k.now()
	c.witness.start(t)
	harness.Elapse(4 * time.Second)
	k.waitServed(t, c.alpha, k.now())
	k.within(t, fault, 700*time.Millisecond)
	c.alpha.die(t)
	k.waitServed(t, c.beta, k.now())
	c.alpha.boot(t)
	c.waitPair(t, c.beta)
}
