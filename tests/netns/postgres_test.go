// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netns

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
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
	l := c.newLedger(t)
	primary := c.alpha
	l.waitMore(t, 0)
	for range *failovers {
		from := l.committed()
		next := c.other(primary)
		began := time.Now()
		what := c.misfortune(t, random, primary)
		l.waitMore(t, from)
		t.Logf("%s of %s: committed again after %v", what.name, primary.name, time.Since(began).Round(10*time.Millisecond))
		what.repair(primary, t)
		c.waitPair(t, next)
		l.compare(t)
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

// ledger is what the client knows to be committed.
type ledger struct {
	cluster *cluster

	mu   sync.Mutex
	rows []int
}

// newLedger makes the table, and a client that inserts rows until the end of the
// test.
func (c *cluster) newLedger(t testing.TB) *ledger {
	t.Helper()
	l := &ledger{cluster: c}
	ctx, stop := context.WithCancel(context.Background())
	harness.WaitFor(t, "a table", patience, func() error {
		_, err := l.query(ctx, "create table ledger (id int primary key)")
		return err
	})
	var working sync.WaitGroup
	working.Go(func() {
		for id := 1; ctx.Err() == nil; id++ {
			if _, err := l.query(ctx, fmt.Sprintf("insert into ledger values (%d)", id)); err == nil {
				l.mu.Lock()
				l.rows = append(l.rows, id)
				l.mu.Unlock()
			}
		}
	})
	t.Cleanup(func() {
		stop()
		working.Wait()
		t.Logf("%d rows committed", l.committed())
	})
	return l
}

// query asks PostgreSQL at the virtual address, from the client's machine.
func (l *ledger) query(ctx context.Context, text string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "psql", "--no-psqlrc", "-qAt", "-h", virtual.String(), "-U", "postgres", "-c", text)
	cmd.Env = append(os.Environ(), "PGCONNECT_TIMEOUT=2")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := l.cluster.client.do(cmd.Start); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("%w: %s", err, stderr.String())
	}
	return stdout.String(), nil
}

func (l *ledger) committed() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.rows)
}

// waitMore waits until rows were committed after a moment.
func (l *ledger) waitMore(t testing.TB, than int) {
	t.Helper()
	harness.WaitFor(t, "rows to be committed", 2*patience, func() error {
		if n := l.committed(); n < than+3 { // two may have been on the way
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
}

// compare holds that all rows that were committed by now are there.
func (l *ledger) compare(t testing.TB) {
	t.Helper()
	l.mu.Lock()
	rows := l.rows[:len(l.rows):len(l.rows)]
	l.mu.Unlock()
	var text string
	harness.WaitFor(t, "the table to be read", patience, func() (err error) {
		text, err = l.query(t.Context(), "select id from ledger")
		return err
	})
	if missing := harness.MissingRows(text, rows); missing > 0 {
		t.Fatalf("%d of %d committed rows are gone", missing, len(rows))
	}
}
