// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vm

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/tests/harness"
)

// Files are used at random (package filefuzz) while the daemon is replaced, killed and
// started again, then by what fails with the machine. After each move the other node
// has every byte.
func TestFiles(t *testing.T) {
	for _, one := range []struct {
		fs      string
		size    int64
		modules []string
		check   string // what it takes here
	}{
		{"ext4", 64 << 20, nil, "fsck.ext4"},
		{"xfs", 320 << 20, []string{"xfs"}, "xfs_repair"}, // mkfs.xfs refuses less than 300 MiB
	} {
		t.Run(one.fs, func(t *testing.T) {
			need(t)
			harness.Need(t, one.check)
			c := newMounted(t, options{
				fs: one.fs, size: one.size, modules: one.modules, pace: `{ heartbeat = "1s", timeout = "12s" }`,
				files: files{"/usr/local/bin/filefuzz": {built(t, "filefuzz"), 0o755}},
			}, "true")
			c.fuzzFiles(t)
		})
	}
}

func (c *cluster) fuzzFiles(t *testing.T) {
	serves := c.waitServing(t)
	next := c.other(serves)
	first := serves.startFuzz(t, "/data/first")
	serves.waitWritten(t)
	serves.replaceDaemon(t)
	serves.waitWritten(t)
	serves.killDaemon(t)
	serves.waitWritten(t)
	c.waitPair(t, serves)
	serves.waitWritten(t)
	first.end(t)

	serves.must(t, "twinbd", "switch", serviceName)
	c.waitPair(t, next)
	first.check(t, next)
	second := next.startFuzz(t, "/data/second")
	for range 5 {
		next.waitWritten(t)
	}
	second.end(t)

	next.startFuzz(t, "/data/third") // is cut off in the middle, and never compared
	next.waitWritten(t)
	harness.Elapse(time.Duration(c.random.IntN(3000)) * time.Millisecond)
	next.die(t)
	harness.WaitFor(t, serves.name+" to serve", 2*patience, func() error { return serves.is(t, control.Alone) })
	first.check(t, serves)
	second.check(t, serves)
	next.comeBack(t)
	c.waitPair(t, serves)
	c.checkFiles(t)
	for _, n := range c.nodes() {
		n.checkKernel(t)
	}
}

// fuzz is one run of filefuzz.
type fuzz struct {
	node    *node
	program *program
	dir     string
	seed    uint64
	ops     string // after its end: how many operations it has done
}

// startFuzz uses files at random, until it is ended.
func (n *node) startFuzz(t testing.TB, dir string) *fuzz {
	t.Helper()
	f := &fuzz{node: n, dir: dir, seed: n.cluster.random.Uint64()}
	f.program = n.start(t, nil, nil, "filefuzz", "-dir", dir, "-seed", fmt.Sprint(f.seed), "-until", dir+".end")
	return f
}

func (f *fuzz) end(t testing.TB) {
	t.Helper()
	f.node.must(t, "touch", f.dir+".end")
	out, err := f.program.wait(patience)
	if err != nil || out.Code != 0 {
		t.Fatalf("files used at random on %s: %s, %v", f.node.name, out, err)
	}
	f.ops = strings.TrimSpace(out.Stdout)
	t.Logf("%s operations on files in %s", f.ops, f.dir)
}

// check holds that a node has the files as they were left.
func (f *fuzz) check(t testing.TB, n *node) {
	t.Helper()
	if out := n.run(t, "filefuzz", "-dir", f.dir, "-seed", fmt.Sprint(f.seed), "-ops", f.ops, "-check"); out.Code != 0 {
		t.Errorf("files on %s: %s", n.name, out)
	}
}

// built is a static program made from one of the packages beside this one.
func built(t testing.TB, name string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "./"+name)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// checkKernel holds that the node's kernel has found no fault in itself.
func (n *node) checkKernel(t testing.TB) {
	t.Helper()
	if said := n.shell(t, "dmesg | grep -E 'BUG|WARNING|Call Trace|Oops|blocked for more than' || true"); said != "" {
		t.Errorf("the kernel of %s:\n%s", n.name, said)
	}
}
