// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vm

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/tests/drive"
	"github.com/twinbd/twinbd/tests/harness"
)

// What every cluster of these tests has in common.
const (
	serviceName  = "db"
	volumeName   = "data"
	virtual      = "10.66.0.100"
	exportPort   = 10809
	metadataRoom = 4 << 20 // behind the data of a drive
	stateSize    = 8 << 20
	configFile   = "/etc/twinbd.toml"
)

// defaultPace is slow, because a machine that is emulated on a busy one stands still for
// seconds. What is measured contains it.
const defaultPace = `{ heartbeat = "500ms", timeout = "5s" }`

// options say what kind of cluster a test needs.
type options struct {
	size    int64    // of the volume; 32 MiB by default
	pace    string   // by default defaultPace
	service string   // more lines for the service
	volume  string   // lines for the volume; by default the export at the virtual address
	fs      string   // where one is mounted: "ext4" by default, or "xfs", which wants 300 MiB
	modules []string // of the kernel, that not every machine loads
	files   files    // more of them, on both nodes
	drives  []int64  // more of them, on both nodes: sizes, from /dev/vde on
	plain   bool     // nothing is enciphered
}

// cluster is two nodes on machines of their own, and a witness and a client outside.
type cluster struct {
	dir         string
	lan         *lan
	outside     *thread // a network namespace on the lan
	alpha, beta *node
	witness     *exec.Cmd
	options     options
	binary      string
	random      *rand.Rand
}

// node is one of the two servers.
type node struct {
	*machine
	cluster *cluster
	daemon  *program
}

// newCluster makes a pair of which alpha serves.
func newCluster(t testing.TB, o options) *cluster {
	t.Helper()
	need(t)
	o.size, o.pace, o.fs = cmp.Or(o.size, 32<<20), cmp.Or(o.pace, defaultPace), cmp.Or(o.fs, "ext4")
	o.volume = cmp.Or(o.volume, fmt.Sprintf("export = \"tcp:%s:%d\"", virtual, exportPort))
	c := &cluster{
		dir: t.TempDir(), lan: newLAN(t), options: o, binary: harness.Binary(t),
		outside: newSpace(t), random: newRandom(t),
	}
	c.lan.connect(t, c.outside, "outside", "10.66.0.3/24")
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(c.path("twinbd.toml"), c.config(c.path("tls")))
	if !o.plain {
		harness.MustRun(t, c.binary, "--config", c.path("twinbd.toml"), "--node", "alpha", "init")
	}
	c.startWitness(t)
	c.alpha, c.beta = c.newNode(t, "alpha", 1), c.newNode(t, "beta", 2)
	began := time.Now()
	for _, n := range c.nodes() {
		n.powerOn(t)
	}
	for _, n := range c.nodes() {
		n.prepare(t)
		n.must(t, "twinbd", "create", "--blank")
		n.serve(t)
	}
	for _, n := range c.nodes() {
		n.waitAnswer(t)
	}
	c.alpha.must(t, "twinbd", "prim", serviceName)
	c.waitPair(t, c.alpha)
	t.Logf("a pair %v after the machines were switched on", time.Since(began).Round(100*time.Millisecond))
	return c
}

// newRandom is what is chosen at random, for example what drives lose.
func newRandom(t testing.TB) *rand.Rand {
	t.Helper()
	from := *seed
	if from == 0 {
		from = rand.Uint64()
	}
	t.Logf("seed %d", from)
	return rand.New(rand.NewPCG(from, from))
}

func (c *cluster) path(name string) string { return filepath.Join(c.dir, name) }

func (c *cluster) nodes() []*node { return []*node{c.alpha, c.beta} }

func (c *cluster) other(n *node) *node {
	if n == c.alpha {
		return c.beta
	}
	return c.alpha
}

// config is the file that all read. Keys are elsewhere outside of the machines.
func (c *cluster) config(keys string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "cluster = \"vm\"\n\n[node.alpha]\naddress = [\"10.66.0.1:7800\"]\n\n[node.beta]\naddress = [\"10.66.0.2:7800\"]\n\n")
	trust := fmt.Sprintf("dir = %q", keys)
	if c.options.plain {
		trust = "insecure = true"
	}
	fmt.Fprintf(&b, "[witness]\naddress = [\"10.66.0.3:7801\"]\n\n[tls]\n%s\n\n", trust)
	fmt.Fprintf(&b, "[service.%s]\npace = %s\nip = [\"%s/24\"]\npeer-timeout = \"20s\"\ndisk-timeout = \"30s\"\n%s\n\n", serviceName, c.options.pace, virtual, c.options.service)
	fmt.Fprintf(&b, "[service.%s.volume.%s]\nsize = \"%dKiB\"\ndisk = \"/dev/vdc\"\n%s\n", serviceName, volumeName, c.options.size>>10, c.options.volume)
	return b.String()
}

func (c *cluster) newNode(t testing.TB, name string, number int) *node {
	t.Helper()
	content := files{configFile: {[]byte(c.config("/etc/twinbd/tls")), 0o600}}
	for name, f := range c.options.files {
		content[name] = f
	}
	add := func(name, from string, mode int64) {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		content[name] = file{text, mode}
	}
	add("/usr/local/lib/twinbd", c.binary, 0o755)
	content["/usr/local/bin/twinbd"] = file{fmt.Appendf(nil, "#!/bin/sh\nexec /usr/local/lib/twinbd --config %s --node %s \"$@\"\n", configFile, name), 0o755}
	keys, err := filepath.Glob(c.path("tls/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		add("/etc/twinbd/tls/"+filepath.Base(key), key, 0o600)
	}
	m := newMachine(t, setup{name: name, number: number, lan: c.lan, files: content, drives: append([]int64{c.options.size + metadataRoom, stateSize}, c.options.drives...)})
	harness.MustRun(t, "mkfs.ext4", "-q", "-b", "1024", m.path("drive1"))
	return &node{machine: m, cluster: c}
}

// startWitness starts it outside, where it stays.
func (c *cluster) startWitness(t testing.TB) {
	t.Helper()
	log, err := os.Create(c.path("witness.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	c.witness = exec.Command(c.binary, "--config", c.path("twinbd.toml"), "witness", "--state", c.path("witness"))
	c.witness.Stdout, c.witness.Stderr = log, log
	if err := c.outside.start(c.witness); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.witness.Process.Kill()
		_ = c.witness.Wait()
		if t.Failed() {
			t.Logf("the last of the log of the witness:\n%s", tail(c.path("witness.log"), 20))
		}
	})
}

// prepare waits for the machine, and mounts what the node must remember.
func (n *node) prepare(t testing.TB) {
	t.Helper()
	n.waitReady(t)
	n.shell(t, "mkdir -p /data /var/lib/twinbd; mount /dev/vdd /var/lib/twinbd")
	if modules := n.cluster.options.modules; len(modules) > 0 {
		n.must(t, append([]string{"modprobe", "-a"}, modules...)...)
	}
}

// serve starts the daemon.
func (n *node) serve(t testing.TB) {
	t.Helper()
	log, err := os.OpenFile(n.path("twinbd.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	daemon := n.start(t, log, nil, "twinbd", "serve")
	n.daemon = daemon
	go func() {
		<-daemon.ended
		_ = log.Close()
	}()
}

// comeBack switches a machine on that had lost its power.
func (n *node) comeBack(t testing.TB) {
	t.Helper()
	n.powerOn(t)
	n.prepare(t)
	n.serve(t)
}

// status is what the node is for the service.
func (n *node) status(t testing.TB) (*control.ServiceStatus, error) {
	t.Helper()
	out, err := n.start(t, nil, nil, "twinbd", "status", "--json").wait(patience)
	if err != nil {
		return nil, err
	}
	var all control.Status
	if err := json.Unmarshal([]byte(out.Stdout), &all); err != nil {
		return nil, fmt.Errorf("%s says: %s: %w", n.name, out, err)
	}
	if s := all.Service(serviceName); s != nil {
		return s, nil
	}
	return nil, fmt.Errorf("%s does not know service %s", n.name, serviceName)
}

func (n *node) is(t testing.TB, state control.State) error {
	s, err := n.status(t)
	if err == nil && (s.State != state || s.Colour != control.Ready) {
		err = fmt.Errorf("%s is %s (%s): %s %v", n.name, s.State, s.Colour, s.Reason, s.Problems)
	}
	return err
}

func (n *node) waitAnswer(t testing.TB) {
	t.Helper()
	harness.WaitFor(t, n.name+" to answer", patience, func() error {
		_, err := n.status(t)
		return err
	})
}

// waitPair waits until a node serves, with its application up, and the other follows.
func (c *cluster) waitPair(t testing.TB, primary *node) {
	t.Helper()
	harness.WaitFor(t, fmt.Sprintf("a pair with %s as primary", primary.name), 2*patience, func() error {
		return errors.Join(primary.is(t, control.Primary), c.other(primary).is(t, control.Secondary))
	})
}

// die cuts the node's power.
func (n *node) die(t testing.TB) {
	t.Helper()
	lose := []float64{0.3, 1}[n.cluster.random.IntN(2)]
	losses := n.cutPower(t, n.cluster.random, lose)
	t.Logf("%s lost power, and of what was not flushed %s sectors of its data and %s of its state", n.name, losses[0], losses[1])
}

// sameDrives holds that both drives have the same, and that no cut could change it.
// A flush must have been acknowledged, and nobody may write.
func (c *cluster) sameDrives(t testing.TB) {
	t.Helper()
	for _, n := range c.nodes() {
		if at := n.disks[0].Volatile(c.options.size); at >= 0 {
			t.Errorf("after a flush a cut could change sector %d on %s", at, n.name)
		}
	}
	if a, b := c.alpha.disks[0].Data[:c.options.size], c.beta.disks[0].Data[:c.options.size]; !bytes.Equal(a, b) {
		at := 0
		for a[at] == b[at] {
			at++
		}
		t.Errorf("the drives differ in sector %d", at/drive.SectorSize)
	}
}
