// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netns

import (
	"fmt"
	"testing"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/tests/harness"
)

// The primary's process dies. Its host answers, and has the address for yet a
// moment.
func TestKill(t *testing.T) {
	c := newCluster(t, options{})
	k := c.newClient(t, 1)
	fault := k.now()
	c.alpha.kill(t)
	k.waitServed(t, c.beta, fault)
	t.Logf("without an acknowledged write for %v", k.gap(fault))
	c.alpha.start(t)
	c.waitPair(t, c.beta)
}

// The primary's host dies: nobody refuses anything.
func TestHostDeath(t *testing.T) {
	c := newCluster(t, options{})
	k := c.newClient(t, 1)
	fault := k.now()
	c.alpha.die(t)
	k.waitServed(t, c.beta, fault)
	t.Logf("without an acknowledged write for %v", k.gap(fault))
	c.alpha.boot(t)
	c.waitPair(t, c.beta)
}

// The secondary dies: clients wait until the primary may go on alone, and no
// longer.
func TestSecondaryDeath(t *testing.T) {
	c := newCluster(t, options{})
	k := c.newClient(t, 1)
	fault := k.now()
	c.beta.die(t)
	c.alpha.waitState(t, control.Alone)
	k.waitServed(t, c.alpha, k.now())
	t.Logf("without an acknowledged write for %v", k.gap(fault))
	c.beta.boot(t)
	c.waitPair(t, c.alpha)
}

// A daemon that is back before its lease runs out keeps the service, for its machine
// has all that it had written (rule 22).
func TestRule22KillAndBackInTime(t *testing.T) {
	c := newCluster(t, options{pace: `"safe"`})
	k := c.newClient(t, 1)
	for range 3 {
		fault := k.now()
		c.alpha.kill(t)
		c.alpha.start(t)
		k.waitServed(t, c.alpha, fault)
		t.Logf("without an acknowledged write for %v", k.gap(fault))
		c.waitPair(t, c.alpha)
	}
}

// One that is back when its lease runs out keeps the service, or finds itself
// demoted: in either case nothing that was acknowledged is lost.
func TestKillAndBackAtOnce(t *testing.T) {
	c := newCluster(t, options{})
	k := c.newClient(t, 1)
	for range 3 {
		primary := c.waitHealed(t)
		primary.kill(t)
		primary.start(t)
		primary = c.waitHealed(t)
		k.waitServed(t, primary, k.now())
	}
}

// The primary's process stands still for longer than its lease, and goes on: what
// it had not said by then it never says (rule 20).
func TestRule20Freeze(t *testing.T) {
	c := newCluster(t, options{})
	k := c.newClient(t, 1)
	fault := k.now()
	c.alpha.freeze(t)
	taken := k.waitServed(t, c.beta, fault)
	c.alpha.thaw(t)
	c.waitPair(t, c.beta)
	k.settle(t)
	k.silent(t, c.alpha, taken)
}

// A primary that stands still for less than its lease goes on as if nothing had
// been.
func TestRule20ShortFreeze(t *testing.T) {
	c := newCluster(t, options{pace: `"normal"`})
	k := c.newClient(t, 1)
	c.alpha.freeze(t)
	harness.Elapse(500 * time.Millisecond)
	c.alpha.thaw(t)
	k.waitServed(t, c.alpha, k.now())
	c.waitPair(t, c.alpha)
}

// A primary that reaches nobody but clients freezes, and loses the address; when
// its process stands still as well, the kernel takes the address (rule 20).
func TestRule20Isolated(t *testing.T) {
	for _, stopped := range []bool{false, true} {
		t.Run(fmt.Sprintf("stopped=%t", stopped), func(t *testing.T) {
			c := newCluster(t, options{})
			k := c.newClient(t, 1)
			fault := k.now()
			if stopped {
				c.alpha.freeze(t)
			}
			c.lan.part(t, "alpha", "beta")
			c.lan.part(t, "alpha", "witness")
			taken := k.waitServed(t, c.beta, fault)
			harness.WaitFor(t, "alpha to lose the address", patience, func() error {
				if c.alpha.space.has(t, virtual) {
					return fmt.Errorf("it has it")
				}
				return nil
			})
			if !stopped {
				c.alpha.waitReason(t, "clients wait")
			}
			c.lan.heal(t)
			if stopped {
				c.alpha.thaw(t)
			}
			c.waitPair(t, c.beta)
			k.settle(t)
			k.silent(t, c.alpha, taken)
		})
	}
}

// silent holds that a node has acknowledged nothing after a moment.
func (k *client) silent(t testing.TB, n *node, since time.Duration) {
	t.Helper()
	for _, o := range k.operations() {
		if o.server == n.name && o.answered && o.ended > since {
			t.Errorf("%v, and the other serves since %v", &o, since)
		}
	}
}
