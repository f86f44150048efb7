// SPDX-License-Identifier: Apache-2.0

//go:build linux

package harness

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twinbd/twinbd/control"
)

// Lab is a cluster on this machine. Nothing runs in a new one.
type Lab struct {
	Dir         string // everything of the lab is below it
	Alpha, Beta *Node
	Witness     *Process // nil: none

	options     Options
	binary      string
	witnessPort int
}

// NewLab makes a lab's directory, configuration and keys.
func NewLab(t testing.TB, o Options) *Lab {
	t.Helper()
	o.complete()
	// Not t.TempDir: a socket's path may have 107 bytes, and tests have long names.
	dir, err := os.MkdirTemp("", "lab")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the lab: %v", err)
		}
	})
	l := &Lab{Dir: dir, options: o, binary: Binary(t)}
	ports := freePorts(t, 3+2*len(o.Volumes))
	l.Alpha, l.Beta, l.witnessPort = l.newNode("alpha", ports[0]), l.newNode("beta", ports[1]), ports[2]
	for i, v := range o.Volumes {
		l.Alpha.exports[v], l.Beta.exports[v] = ports[3+2*i], ports[4+2*i]
	}
	for _, n := range l.Nodes() {
		if err := os.MkdirAll(n.dir(""), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if !o.NoWitness {
		l.Witness = &Process{name: "witness", log: l.path("witness.log"),
			argv: l.argv("", "witness", "--state", l.path("witness"))}
	}
	l.WriteConfig(t, l.config())
	if !o.Insecure {
		l.MustRun(t, "", "init")
	}
	t.Cleanup(func() { l.end(t) })
	return l
}

// NewPair is a lab that runs: both disks made blank, alpha primary, beta in step.
func NewPair(t testing.TB, o Options) *Lab {
	t.Helper()
	l := NewLab(t, o)
	for _, n := range l.Nodes() {
		n.MustRun(t, "create", "--blank")
	}
	l.Start(t)
	l.Alpha.MustRun(t, "prim", Service)
	l.WaitPaired(t, l.Alpha)
	return l
}

// Start starts both nodes, and the witness unless it runs.
func (l *Lab) Start(t testing.TB) {
	t.Helper()
	l.StartWitness(t)
	l.Beta.Start(t)
	l.Alpha.Start(t)
}

// StartWitness starts the witness where the lab has one that does not run.
func (l *Lab) StartWitness(t testing.TB) {
	t.Helper()
	if l.Witness != nil && !l.Witness.Running() {
		l.Witness.start(t)
	}
}

// Nodes are both nodes.
func (l *Lab) Nodes() []*Node { return []*Node{l.Alpha, l.Beta} }

// Other is the other node.
func (l *Lab) Other(n *Node) *Node {
	if n == l.Alpha {
		return l.Beta
	}
	return l.Alpha
}

// Volumes are the names of the volumes.
func (l *Lab) Volumes() []string { return l.options.Volumes }

// Size is the size of each volume in bytes.
func (l *Lab) Size() int64 { return l.options.Size }

// Keys is the directory of the keys.
func (l *Lab) Keys() string { return l.path("tls") }

func (l *Lab) path(name string) string { return filepath.Join(l.Dir, name) }

// ConfigFile is the file that all processes of the lab read.
func (l *Lab) ConfigFile() string { return l.path("twinbd.toml") }

// Config is the text of the configuration.
func (l *Lab) Config() string { return l.config() }

// WriteConfig replaces the configuration.
func (l *Lab) WriteConfig(t testing.TB, text string) {
	t.Helper()
	if err := os.WriteFile(l.ConfigFile(), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (l *Lab) argv(node string, args ...string) []string {
	argv := []string{l.binary, "--config", l.ConfigFile()}
	if node != "" {
		argv = append(argv, "--node", node)
	}
	return append(argv, args...)
}

// Run runs a command of the program, as a node where one is named.
func (l *Lab) Run(t testing.TB, node string, args ...string) Output {
	t.Helper()
	return Run(t, l.argv(node, args...)...)
}

// MustRun is Run of a command that must succeed.
func (l *Lab) MustRun(t testing.TB, node string, args ...string) Output {
	t.Helper()
	out := l.Run(t, node, args...)
	if out.Code != 0 {
		t.Fatalf("twinbd %v on %q: %s", args, node, out)
	}
	return out
}

// WaitPaired waits until one node serves and the other has every write. It
// returns how long that took.
func (l *Lab) WaitPaired(t testing.TB, primary *Node) time.Duration {
	t.Helper()
	return WaitFor(t, fmt.Sprintf("a pair with %s as primary", primary.Name), patience, func() error {
		if err := primary.inState(control.Primary); err != nil {
			return err
		}
		return l.Other(primary).inState(control.Secondary)
	})
}

// WaitServing waits until one of the running nodes serves, and returns it.
func (l *Lab) WaitServing(t testing.TB) *Node {
	t.Helper()
	var serves *Node
	WaitFor(t, "a node to serve", patience, func() error {
		var errs []error
		for _, n := range l.Nodes() {
			if !n.Running() {
				continue
			}
			err := n.inState(control.Primary, control.Alone)
			if err == nil {
				serves = n
				return nil
			}
			errs = append(errs, err)
		}
		return fmt.Errorf("none does: %w", errors.Join(errs...))
	})
	return serves
}

// end is the end of a test: what runs is asked to stop, and disks that both nodes
// say are alike are compared.
func (l *Lab) end(t testing.TB) {
	alike := l.paired()
	for _, n := range l.Nodes() {
		n.Stop(t)
	}
	if l.Witness != nil {
		l.Witness.Stop(t)
	}
	if alike {
		l.SameDisks(t)
	}
	for _, p := range []*Process{&l.Alpha.Process, &l.Beta.Process, l.Witness} {
		if p == nil {
			continue
		}
		for _, sign := range []string{"panic: ", "fatal error: ", "DATA RACE"} {
			if at := strings.Index(p.Log(), sign); at >= 0 {
				t.Errorf("%s: %s", p.name, p.Log()[at:])
			}
		}
		if t.Failed() {
			t.Logf("the last of the log of %s:\n%s", p.name, p.Tail(40))
		}
	}
}

// paired reports whether both nodes run and say that the disks are alike.
func (l *Lab) paired() bool {
	for _, n := range l.Nodes() {
		if !n.Running() {
			return false
		}
		status, err := n.Status()
		if err != nil || !status.Services[0].UpToDate {
			return false
		}
		for _, v := range status.Services[0].Volumes {
			if v.DirtyBlocks != 0 {
				return false
			}
		}
	}
	return true
}
