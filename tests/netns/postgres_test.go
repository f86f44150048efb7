// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netns

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/twinbd/twinbd/tests/harness"
)

var failovers = flag.Int("postgres.failovers", 20, "how often PostgreSQL is moved")

// TestPostgres moves a PostgreSQL, on ext4 on the export, from node to node by
// failovers of random kinds, while a client inserts rows. The client's ledger of
// what was committed is kept outside; after each failover every row of it is there.
func TestPostgres(t *testing.T) {
	need(t)
	harness.Need(t, "nbdfuse", "losetup", "mkfs.ext4", "setpriv", "psql")
	bins, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(bins) == 0 {
		t.Skip("PostgreSQL is not installed: `make setup` as root installs it")
	}
	script, err := filepath.Abs("testdata/postgres")
	if err != nil {
		t.Fatal(err)
	}
	command := func(word string) string {
		return fmt.Sprintf("[\"%s %s {dir} %s\"]", script, word, filepath.Dir(bins[len(bins)-1]))
	}
	c := newCluster(t, options{
		size: 256 << 20, export: "unix:{dir}/{node}/run/data.sock",
		service: "start = " + command("start") + "\nstop = " + command("stop"),
		idle:    true,
	})
	if err := os.Chmod(c.dir, 0o755); err != nil { // postgres passes through
		t.Fatal(err)
	}
	c.alike = true
	c.after = append(c.after, func() { c.sweep(t, script) })
	c.begin(t)

	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, seed))
	rows := harness.NewRows(t, patience, c.ask)
	primary := c.alpha
	rows.WaitMore(t, 2*patience, 0)
	for range *failovers {
		from := rows.Committed()
		next := c.other(primary)
		began := time.Now()
		what := c.misfortune(t, random, primary)
		rows.WaitMore(t, 2*patience, from)
		t.Logf("%s of %s: committed again after %v", what.name, primary.name, time.Since(began).Round(10*time.Millisecond))
		what.repair(primary, t)
		c.waitPair(t, next)
		rows.Compare(t, patience)
		primary = next
	}
	c.waitCalm(t)
}

// kindOfFailover is one way to lose a primary, and how to get it back.
type kindOfFailover struct {
	name          string
	fault, repair func(*node, testing.TB)
}

func (c *cluster) misfortune(t testing.TB, random *rand.Rand, n *node) kindOfFailover {
	t.Helper()
	nothing := func(*node, testing.TB) {}
	kinds := []kindOfFailover{
		{"kill", (*node).kill, (*node).startAgain},
		{"host death", (*node).dieAltogether, (*node).boot},
		{"switch", (*node).switchAway, nothing},
		{"freeze", (*node).freeze, (*node).thaw},
	}
	kind := kinds[random.IntN(len(kinds))]
	kind.fault(n, t)
	return kind
}

// dieAltogether is die with every process of the host.
func (n *node) dieAltogether(t testing.TB) {
	t.Helper()
	n.unplug(t)
	n.killAll(t)
	<-n.done
	n.space.drop(t, virtual)
}

// killAll kills what runs in the node's namespace.
func (n *node) killAll(t testing.TB) {
	t.Helper()
	own, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", n.space.fd))
	if err != nil {
		t.Fatal(err)
	}
	harness.WaitFor(t, "every process of "+n.name+" to be gone", patience, func() error {
		entries, err := os.ReadDir("/proc")
		if err != nil {
			return err
		}
		left := 0
		for _, e := range entries {
			pid, err := strconv.Atoi(e.Name())
			if err != nil || pid == os.Getpid() {
				continue
			}
			at, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
			if err == nil && at == own { // a zombie has none
				_ = syscall.Kill(pid, syscall.SIGKILL)
				left++
			}
		}
		if left > 0 {
			return fmt.Errorf("%d are left", left)
		}
		return nil
	})
}

// sweep takes away what the application has left on this machine.
func (c *cluster) sweep(t testing.TB, script string) {
	for _, n := range c.nodes() {
		n.killAll(t)
		cmd := exec.Command(script, "clear", c.dir, "/bin")
		cmd.Env = append(os.Environ(), "TWINBD_NODE="+n.name)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("clear up after %s: %v\n%s", n.name, err, out)
		}
	}
}

// ask asks PostgreSQL at the virtual address, from the client's machine.
func (c *cluster) ask(ctx context.Context, text string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "psql", "--no-psqlrc", "-qAt", "-h", virtual.String(), "-U", "postgres", "-c", text)
	cmd.Env = append(os.Environ(), "PGCONNECT_TIMEOUT=2")
	return harness.Ask(cmd, func(cmd *exec.Cmd) error { return c.client.do(cmd.Start) })
}
