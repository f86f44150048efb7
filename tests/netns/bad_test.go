// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netns

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/tests/harness"
)

// What is configured, wired or scripted wrongly.

// A node whose keys are another cluster's is told from a dead one, by both.
func TestWrongKey(t *testing.T) {
	c := newCluster(t, options{idle: true, config: func(node, text string) string {
		if node == "beta" {
			return strings.Replace(text, "/tls\"", "/other-tls\"", 1)
		}
		return text
	}})
	c.must(t, c.beta, "init")
	c.witness.start(t)
	for _, n := range c.nodes() {
		c.must(t, n, "create", "--blank")
		n.start(t)
	}
	c.alpha.waitReason(t, "key")
	c.beta.waitReason(t, "key")
	c.beta.waitReason(t, "witness is not reached")
}

// Both machines were told that they are alpha.
func TestSameName(t *testing.T) {
	swap := strings.NewReplacer("node.alpha", "node.beta", "node.beta", "node.alpha", "{node}", "beta")
	c := newCluster(t, options{idle: true, config: func(node, text string) string {
		if node == "beta" {
			return swap.Replace(text)
		}
		return text
	}})
	argv := c.beta.argv
	argv[slices.Index(argv, "beta")] = "alpha"
	c.witness.start(t)
	c.must(t, c.alpha, "create", "--blank")
	if out := harness.Run(t, c.binary, "--config", c.path("beta.toml"), "--node", "alpha", "create", "--blank"); out.Code != 0 {
		t.Fatal(out)
	}
	c.alpha.start(t)
	c.beta.start(t)
	for _, n := range c.nodes() {
		n.waitReason(t, "alpha answered in place of beta")
	}
}

// The configurations differ: both say in which keys, and serve.
func TestDifferentConfiguration(t *testing.T) {
	c := newCluster(t, options{service: "peer-timeout = \"5s\"", config: func(node, text string) string {
		if node == "beta" {
			return strings.Replace(text, "peer-timeout = \"5s\"", "peer-timeout = \"7s\"", 1)
		}
		return text
	}})
	c.newClient(t, 1)
	for _, n := range c.nodes() {
		n.waitReason(t, "service.db.peer-timeout")
	}
}

// A stranger has the virtual address: it is not taken, the node says who has it,
// and takes it when it is free.
func TestAddressInUse(t *testing.T) {
	need(t)
	c := newCluster(t, options{idle: true})
	stranger := newSpace(t, "stranger")
	c.lan.connect(t, stranger, 0, 66)
	stranger.address(t, "eth0", virtual.String()+"/24")
	c.witness.start(t)
	for _, n := range c.nodes() {
		c.must(t, n, "create", "--blank")
		n.start(t)
	}
	c.alpha.waitReason(t, "nobody has served")
	c.must(t, c.alpha, "prim", serviceName)
	hardware := stranger.hardware(t, "eth0").String()
	c.alpha.waitReason(t, hardware)
	if c.alpha.space.has(t, virtual) {
		t.Error("the address was taken all the same")
	}
	stranger.drop(t, virtual)
	harness.WaitFor(t, "a node to take the address", patience, func() error {
		if c.alpha.space.has(t, virtual) || c.beta.space.has(t, virtual) {
			return nil
		}
		return fmt.Errorf("none has it")
	})
	c.newClient(t, 1)
}

// The application does not start here: the service moves, once, to where it
// starts.
func TestStartFails(t *testing.T) {
	c := newCluster(t, options{idle: true, service: `start = ["test $TWINBD_NODE = beta || { echo no such database; exit 1; }"]
stop = ["true"]`})
	c.witness.start(t)
	c.startBlank(t)
	k := c.newClient(t, 1)
	c.waitPair(t, c.beta)
	k.waitServed(t, c.beta, k.now())
	if n := c.count(t, c.alpha, "application", "failed"); n != 1 {
		t.Errorf("the application failed %d times on alpha", n)
	}
}

// It starts nowhere: the service moves once and stays, with the volume served
// (rule 23).
func TestRule23StartFailsEverywhere(t *testing.T) {
	c := newCluster(t, options{idle: true, service: "start = [\"echo no such database; exit 1\"]\nstop = [\"true\"]"})
	c.witness.start(t)
	c.startBlank(t)
	k := c.newClient(t, 1)
	c.beta.waitReason(t, "no such database")
	harness.Elapse(4 * time.Second)
	k.waitServed(t, c.beta, k.now())
	if n := c.count(t, c.alpha, "application", "failed") + c.count(t, c.beta, "application", "failed"); n != 2 {
		t.Errorf("the application failed %d times; once on each node is right", n)
	}
	c.alpha.die(t) // the last good copy is not stopped by a script
	k.waitServed(t, c.beta, k.now())
}

// The start script hangs: the volume is served all the same, and a switch ends
// the script.
func TestStartHangs(t *testing.T) {
	need(t)
	mark := t.TempDir() + "/pid"
	c := newCluster(t, options{idle: true, service: fmt.Sprintf(
		"start = [\"test $TWINBD_NODE = beta || { echo $$ > %s; sleep 1000; }\"]\nstop = [\"true\"]", mark)})
	c.witness.start(t)
	c.startBlank(t)
	k := c.newClient(t, 1)
	k.waitServed(t, c.alpha, k.now())
	harness.WaitFor(t, "the script to run", patience, func() error { _, err := os.Stat(mark); return err })
	harness.WaitFor(t, "the secondary to follow", patience, func() error {
		s, err := c.beta.status()
		if err == nil && s.State != control.Secondary {
			err = fmt.Errorf("it is %s: %s", s.State, s.Reason)
		}
		return err
	})
	c.alpha.mustAct(t, "switch")
	k.waitServed(t, c.beta, k.now())
	c.waitPair(t, c.beta)
	pid, err := os.ReadFile(mark)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/proc/" + strings.TrimSpace(string(pid))); err == nil {
		t.Error("the script still runs")
	}
}

// startBlank starts both nodes with new disks, and makes alpha serve.
func (c *cluster) startBlank(t testing.TB) {
	t.Helper()
	for _, n := range c.nodes() {
		c.must(t, n, "create", "--blank")
		n.start(t)
	}
	c.alpha.waitReason(t, "nobody has served")
	if err := c.alpha.act("prim", nil); err != nil {
		t.Fatal(err)
	}
}

// count is how often an event has come to pass on a node.
func (c *cluster) count(t testing.TB, n *node, kind, new string) (times int) {
	t.Helper()
	for _, e := range n.events(t) {
		if e.Kind == kind && e.New == new {
			times++
		}
	}
	return times
}
