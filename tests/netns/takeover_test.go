// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netns

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
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

// A daemon that is back before its lease runs out keeps the service, when it has got
// from its peer what it may lack (rule 22). One that ends again soon after does not: it
// may be what it is asked for that ends it.
func TestRule22KillAndBackInTime(t *testing.T) {
	c := newCluster(t, options{pace: `"safe"`})
	k := c.newClient(t, 1)
	for _, then := range []*node{c.alpha, c.beta} {
		fault := k.now()
		c.alpha.kill(t)
		c.alpha.start(t)
		k.waitServed(t, then, fault)
		t.Logf("without an acknowledged write for %v", k.gap(fault))
		c.waitPair(t, then)
	}
}

// A daemon is replaced while it serves, and while it follows: it stays the same
// process, the service stays where it is, and its application is not even started
// anew. With a configuration that is wrong nothing happens.
func TestReplaced(t *testing.T) {
	need(t)
	mark := t.TempDir() + "/mark"
	c := newCluster(t, options{service: fmt.Sprintf(
		"start = [\"echo start >>%[1]s; while echo it prints; do date +%%s%%N >%[1]s.alive; sleep 0.05; done &\"]\nstop = [\"echo stop >>%[1]s\"]", mark)})
	k := c.newClient(t, 1)
	for _, n := range []*node{c.alpha, c.beta, c.alpha} {
		fault := k.now()
		before := n.successors(t)
		n.signal(t, syscall.SIGHUP)
		harness.WaitFor(t, "a successor of "+n.name, patience, func() error {
			if n.successors(t) == before {
				return errors.New("none")
			}
			return nil
		})
		k.waitServed(t, c.alpha, k.now())
		t.Logf("%s replaced: without an acknowledged write for %v", n.name, k.gap(fault))
		c.waitPair(t, c.alpha)
	}
	if text, err := os.ReadFile(mark); err != nil || string(text) != "start\n" {
		t.Errorf("the application was told %q, %v", text, err)
	}
	alive := func() string {
		text, err := os.ReadFile(mark + ".alive")
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	before := alive()
	harness.WaitFor(t, "the application to go on", patience, func() error {
		if alive() == before {
			return errors.New("it does not")
		}
		return nil
	})

	file := c.path("alpha.toml")
	right, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(right, "nonsense\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	c.alpha.signal(t, syscall.SIGHUP)
	harness.WaitFor(t, "alpha to say that it is not replaced", patience, func() error {
		if log := c.alpha.tail(100); !strings.Contains(log, "not replaced") {
			return errors.New("it does not")
		}
		return nil
	})
	if err := os.WriteFile(file, right, 0o600); err != nil {
		t.Fatal(err)
	}
	k.waitServed(t, c.alpha, k.now())
	c.waitPair(t, c.alpha)
}

// successors is how often a process has begun to serve in the node's place.
func (n *node) successors(t testing.TB) int {
	t.Helper()
	text, err := os.ReadFile(n.log)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(text), "ready, control socket")
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
		k.waitHealed(t)
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
