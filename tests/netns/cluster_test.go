// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netns

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/tests/harness"
)

var keep = flag.String("netns.keep", "", "directory for the logs of a test that fails")

// What every cluster of these tests has in common.
const (
	serviceName = "db"
	volumeName  = "data"
	volumeSize  = 32 << 20
	exportPort  = 10809
)

var virtual = netip.MustParseAddr("10.77.0.100")

// options say what kind of cluster a test needs.
type options struct {
	pace    string // "fast" by default
	arbiter string // the [witness] table; by default the one of this cluster
	service string // more lines for the service
	export  string // by default at the virtual address
	size    int64  // of the volume, by default volumeSize
	config  func(node, text string) string
	idle    bool // nothing is started
}

// cluster is two nodes, a witness and a client, each a machine of its own.
type cluster struct {
	dir     string
	lan     *lan
	alpha   *node
	beta    *node
	witness *process
	client  *space
	options options
	binary  string
	alike   bool     // the disks must be alike at the end
	after   []func() // what is done when all has ended
}

// node is one of the two servers.
type node struct {
	process
	cluster *cluster
	host    byte
}

const defaultArbiter = `address = ["10.77.0.3:7801"]`

// newCluster makes the machines, their networks, configuration and keys, and
// unless told not to a pair of which alpha serves.
func newCluster(t testing.TB, o options) *cluster {
	t.Helper()
	need(t)
	o.pace, o.arbiter = cmp.Or(o.pace, `"fast"`), cmp.Or(o.arbiter, defaultArbiter)
	o.size = cmp.Or(o.size, volumeSize)
	o.export = cmp.Or(o.export, fmt.Sprintf("tcp:%s:%d", virtual, exportPort))
	dir, err := os.MkdirTemp("", "netns") // not t.TempDir: a socket's path may have 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	c := &cluster{dir: dir, lan: newLAN(t), options: o, binary: harness.Binary(t), client: newSpace(t, "client")}
	c.lan.connect(t, c.client, 0, 9)
	c.alpha, c.beta = c.newNode(t, "alpha", 1), c.newNode(t, "beta", 2)
	third := newSpace(t, "witness")
	c.lan.connect(t, third, 0, 3)
	c.witness = &process{name: "witness", space: third, log: c.path("witness.log"),
		argv: []string{c.binary, "--config", c.path("alpha.toml"), "witness", "--state", c.path("witness")}}
	c.configure(t)
	c.must(t, c.alpha, "init")
	t.Cleanup(func() { c.end(t) })
	if !o.idle {
		c.begin(t)
	}
	return c
}

func (c *cluster) newNode(t testing.TB, name string, host byte) *node {
	t.Helper()
	s := newSpace(t, name)
	c.lan.connect(t, s, 0, host)
	c.lan.connect(t, s, 1, host)
	if err := os.Mkdir(c.path(name), 0o755); err != nil {
		t.Fatal(err)
	}
	return &node{cluster: c, host: host, process: process{
		name: name, space: s, log: c.path(name + ".log"), pid: c.path(name + ".pid"),
		argv: []string{c.binary, "--config", c.path(name + ".toml"), "--node", name, "serve"},
	}}
}

func (c *cluster) path(name string) string { return filepath.Join(c.dir, name) }

func (c *cluster) nodes() []*node { return []*node{c.alpha, c.beta} }

func (c *cluster) other(n *node) *node {
	if n == c.alpha {
		return c.beta
	}
	return c.alpha
}

// configure writes each node's file: the same, unless a test wants otherwise.
func (c *cluster) configure(t testing.TB) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "cluster = \"netns\"\n\n")
	for _, n := range c.nodes() {
		fmt.Fprintf(&b, "[node.%s]\naddress = [\"10.77.1.%d:7800\", \"10.77.0.%d:7800\"]\nstate = %q\nrun = %q\n\n",
			n.name, n.host, n.host, n.path("state"), n.path("run"))
	}
	if c.options.arbiter != "none" {
		fmt.Fprintf(&b, "[witness]\n%s\n\n", c.options.arbiter)
	}
	fmt.Fprintf(&b, "[tls]\ndir = %q\n\n", c.path("tls"))
	fmt.Fprintf(&b, "[service.%s]\npace = %s\nip = [\"%s/24\"]\n%s\n\n", serviceName, c.options.pace, virtual, c.options.service)
	fmt.Fprintf(&b, "[service.%s.volume.%s]\nsize = \"%dKiB\"\ndisk = %q\nexport = %q\n",
		serviceName, volumeName, c.options.size>>10, c.path("{node}/data.img"), c.options.export)
	for _, n := range c.nodes() {
		text := strings.ReplaceAll(b.String(), "{dir}", c.dir)
		if c.options.config != nil {
			text = c.options.config(n.name, text)
		}
		if err := os.WriteFile(c.path(n.name+".toml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// begin makes both disks and a pair of which alpha serves.
func (c *cluster) begin(t testing.TB) {
	t.Helper()
	if strings.Contains(c.options.arbiter, "address") {
		c.witness.start(t)
	}
	for _, n := range c.nodes() {
		c.must(t, n, "create", "--blank")
		n.start(t)
	}
	for _, n := range c.nodes() {
		n.waitFor(t, "answer", func(*control.ServiceStatus) error { return nil })
	}
	c.must(t, c.alpha, "prim", serviceName)
	c.waitPair(t, c.alpha)
}

// must runs a command of the program that must succeed.
func (c *cluster) must(t testing.TB, n *node, args ...string) harness.Output {
	t.Helper()
	out := c.command(t, n, args...)
	if out.Code != 0 {
		t.Fatalf("twinbd %v on %s: %s", args, n.name, out)
	}
	return out
}

func (c *cluster) command(t testing.TB, n *node, args ...string) harness.Output {
	t.Helper()
	argv := append([]string{c.binary, "--config", c.path(n.name + ".toml"), "--node", n.name}, args...)
	return harness.Run(t, argv...)
}

func (n *node) path(name string) string { return filepath.Join(n.cluster.dir, n.name, name) }

// act asks the node to do something, and returns when it has.
func (n *node) act(verb string, args map[string]string) error {
	return n.actWithin(patience, verb, args)
}

// actWithin is act that gives up.
func (n *node) actWithin(limit time.Duration, verb string, args map[string]string) error {
	client := control.NewClient(n.path("run/twinbd.sock"))
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return client.Act(ctx, control.Action{Verb: verb, Service: serviceName, Args: args}, nil)
}

func (n *node) mustAct(t testing.TB, verb string) {
	t.Helper()
	if err := n.act(verb, nil); err != nil {
		t.Fatalf("%s on %s: %v", verb, n.name, err)
	}
}

// status is what the node is for the service.
func (n *node) status() (*control.ServiceStatus, error) {
	if !n.running() {
		return nil, fmt.Errorf("%s does not run: %w", n.name, errors.Join(n.err, errors.New(n.tail(3))))
	}
	client := control.NewClient(n.path("run/twinbd.sock"))
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	all, err := client.Status(ctx)
	if err != nil {
		return nil, err
	}
	if s := all.Service(serviceName); s != nil {
		return s, nil
	}
	return nil, fmt.Errorf("%s does not know service %s", n.name, serviceName)
}

// events are what the node remembers, the oldest first.
func (n *node) events(t testing.TB) (all []control.Event) {
	t.Helper()
	client := control.NewClient(n.path("run/twinbd.sock"))
	defer client.Close()
	err := client.Events(t.Context(), 0, false, func(e control.Event) error {
		all = append(all, e)
		return nil
	})
	if err != nil {
		t.Fatalf("events of %s: %v", n.name, err)
	}
	return all
}

// waitFor asks the node for its status until it is right.
func (n *node) waitFor(t testing.TB, what string, right func(*control.ServiceStatus) error) time.Duration {
	t.Helper()
	return harness.WaitFor(t, n.name+" to "+what, patience, func() error {
		s, err := n.status()
		if err != nil {
			return err
		}
		if err := right(s); err != nil {
			return fmt.Errorf("%w; it is %s: %s", err, s.State, s.Reason)
		}
		return nil
	})
}

func (n *node) waitState(t testing.TB, states ...control.State) time.Duration {
	t.Helper()
	return n.waitFor(t, fmt.Sprintf("be %v", states), func(s *control.ServiceStatus) error {
		if !slices.Contains(states, s.State) {
			return fmt.Errorf("it is not %v", states)
		}
		return nil
	})
}

// waitReason waits until the node says a text, as the reason of its state or as
// a problem.
func (n *node) waitReason(t testing.TB, text string) {
	t.Helper()
	n.waitFor(t, fmt.Sprintf("say %q", text), func(s *control.ServiceStatus) error {
		said := s.Reason + "\n" + s.Peer.Problem
		for _, p := range s.Problems {
			said += "\n" + p.Message
		}
		if !strings.Contains(said, text) {
			return fmt.Errorf("it says %q", said)
		}
		return nil
	})
}

// waitPair waits until a node serves, with its application up, and the other
// follows.
func (c *cluster) waitPair(t testing.TB, primary *node) {
	t.Helper()
	harness.WaitFor(t, fmt.Sprintf("a pair with %s as primary", primary.name), patience, func() error {
		return errors.Join(primary.is(control.Primary), c.other(primary).is(control.Secondary))
	})
}

// waitHealed waits until one node serves and the other follows, whichever it is.
func (c *cluster) waitHealed(t testing.TB) (primary *node) {
	t.Helper()
	harness.WaitFor(t, "a pair", 2*patience, func() (err error) {
		primary, err = c.pair()
		return err
	})
	return primary
}

// pair is the node that serves, when the other follows.
func (c *cluster) pair() (primary *node, err error) {
	var errs []error
	for _, n := range c.nodes() {
		err := errors.Join(n.is(control.Primary), c.other(n).is(control.Secondary))
		if err == nil {
			return n, nil
		}
		errs = append(errs, err)
	}
	return nil, errs[0]
}

func (n *node) is(state control.State) error {
	s, err := n.status()
	if err != nil {
		return err
	}
	if s.State != state || s.Colour != control.Ready {
		return fmt.Errorf("%s is %s (%s): %s", n.name, s.State, s.Colour, s.Reason)
	}
	return nil
}

// die is the end of a host: its cables, then its processes, then what its kernel
// had.
func (n *node) die(t testing.TB) {
	t.Helper()
	n.unplug(t)
	n.kill(t)
	n.space.drop(t, virtual)
}

func (n *node) unplug(t testing.TB) {
	t.Helper()
	// The service's network last: while the other link is there, its loss is a reason
	// to switch, which takes some milliseconds.
	n.cluster.lan.cable(t, n.name+"1", false)
	n.cluster.lan.cable(t, n.name+"0", false)
}

func (n *node) plug(t testing.TB) {
	t.Helper()
	n.cluster.lan.cable(t, n.name+"0", true)
	n.cluster.lan.cable(t, n.name+"1", true)
}

// boot starts a host that has died.
func (n *node) boot(t testing.TB) {
	t.Helper()
	n.plug(t)
	n.start(t)
}

// calm is for longer than it takes to notice a silence from before the last
// healing: a pair may part once more for that.
const calm = 3 * time.Second

// waitCalm waits until both nodes have said for long enough that the disks are
// alike. After that nothing is left of what was broken.
func (c *cluster) waitCalm(t testing.TB) {
	t.Helper()
	since := time.Now()
	harness.WaitFor(t, "disks that stay alike", patience, func() error {
		if err := c.sayAlike(); err != nil {
			since = time.Now()
			return err
		}
		if lasted := time.Since(since); lasted < calm {
			return fmt.Errorf("they are alike since %v", lasted)
		}
		return nil
	})
}

// sayAlike is nil when both nodes say that the disks are alike.
func (c *cluster) sayAlike() error {
	for _, n := range c.nodes() {
		s, err := n.status()
		if err != nil {
			return err
		}
		if dirty := s.Volumes[0].DirtyBlocks; !s.UpToDate || dirty != 0 {
			return fmt.Errorf("%s is %s, up to date %v, %d blocks dirty: %s", n.name, s.State, s.UpToDate, dirty, s.Reason)
		}
	}
	return nil
}

// end is the end of a test: what runs is asked to stop, nobody may have crashed,
// and disks that both nodes say are alike are.
func (c *cluster) end(t testing.TB) {
	defer func() {
		for _, f := range c.after {
			f()
		}
	}()
	alike := c.alpha.running() && c.beta.running() && !t.Failed() && c.sayAlike() == nil
	if alike {
		_ = c.alpha.act("stop", map[string]string{"all": "true"}) // refused where it does not serve: then the peer does
	}
	for _, n := range c.nodes() {
		n.stop(t)
	}
	c.witness.stop(t)
	if alike {
		c.sameDisks(t)
	} else if c.alike && !t.Failed() {
		t.Error("the nodes do not say that the disks are alike")
	}
	for _, p := range []*process{&c.alpha.process, &c.beta.process, c.witness} {
		if text := p.crashed(); text != "" {
			t.Errorf("%s: %s", p.name, text)
		}
		if t.Failed() {
			t.Logf("the last of the log of %s:\n%s", p.name, p.tail(40))
			if *keep != "" {
				t.Logf("keep the log of %s: %v", p.name, p.keep(*keep))
			}
		}
	}
}

func (c *cluster) sameDisks(t testing.TB) {
	t.Helper()
	a, b := harness.Checksum(t, c.alpha.path("data.img"), c.options.size), harness.Checksum(t, c.beta.path("data.img"), c.options.size)
	if a != b {
		t.Errorf("the disks differ: %s and %s", a, b)
	}
}
