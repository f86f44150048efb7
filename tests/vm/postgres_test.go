// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vm

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twinbd/twinbd/tests/harness"
)

// A PostgreSQL on ext4 on /dev/nbd0 is what the project is for. A client inserts rows
// over the virtual address, one transaction each, and keeps a ledger of what was
// committed. While the daemon is replaced, and when it is killed and started again, no
// transaction fails. When the service moves, every committed row is there; how long that
// took is printed in its parts. At the end indexes, tables and file systems are sound.
func TestPostgres(t *testing.T) {
	need(t)
	harness.Need(t, "psql")
	script, err := os.ReadFile("testdata/pg")
	if err != nil {
		t.Fatal(err)
	}
	c := newMounted(t, options{
		size: 160 << 20, pace: `{ heartbeat = "500ms", timeout = "8s" }`,
		service: `start = ["/usr/local/bin/pg start"]` + "\n" + `stop = ["/usr/local/bin/pg stop"]`,
		files:   files{"/usr/local/bin/pg": {script, 0o755}},
	}, `cp -a /srv/pg /data/pg
cat >>/data/pg/postgresql.conf <<END
listen_addresses = '*'
unix_socket_directories = '/tmp'
shared_buffers = 8MB
max_wal_size = 16MB
min_wal_size = 4MB
max_connections = 10
autovacuum = off
END
echo 'host all all 10.66.0.0/24 trust' >>/data/pg/pg_hba.conf`)
	serves := c.waitServing(t)
	rows := c.newRows(t)

	for _, way := range []struct {
		name string
		do   func(*node, testing.TB)
	}{
		{"the daemon is replaced", (*node).replaceDaemon},
		{"the daemon is killed", (*node).killDaemon},
	} {
		failed, fault := rows.failures(), time.Now()
		way.do(serves, t)
		rows.waitMore(t, rows.count())
		c.waitPair(t, serves)
		t.Logf("%s: nothing was committed for %v at most", way.name, rows.gapSince(fault).Round(10*time.Millisecond))
		if n := rows.failures() - failed; n > 0 {
			t.Errorf("%s, and %d transactions fail: %s", way.name, n, rows.lastFailure())
		}
		rows.compare(t)
	}
	nothing := func(*node, testing.TB) {}
	for _, way := range []struct {
		name        string
		leave, mend func(*node, testing.TB)
	}{
		{"planned switch", (*node).leave, nothing},
		{"power cut", (*node).die, (*node).comeBack},
		{"cut off", (*node).cutOff, (*node).rejoin},
		{"processors stopped", (*node).freeze, (*node).thaw},
	} {
		next := c.other(serves)
		since := next.lastEvent(t)
		fault := time.Now()
		way.leave(serves, t)
		harness.WaitFor(t, next.name+" to serve", 2*patience, func() error { return next.serving(t) })
		rows.waitMore(t, rows.count())
		t.Logf("%s: nothing was committed for %v; of that on %s: %s", way.name, rows.gapSince(fault).Round(10*time.Millisecond), next.name, next.stepsUp(t, since))
		way.mend(serves, t)
		c.waitPair(t, next)
		rows.compare(t)
		serves = next
	}
	rows.halt()
	serves.shell(t, "cd / && setpriv --reuid=postgres --regid=postgres --clear-groups /srv/bin/pg_amcheck --host=/tmp --all --install-missing --heapallindexed")
	c.checkFiles(t)
}

// killDaemon kills the node's daemon and starts another.
func (n *node) killDaemon(t testing.TB) {
	t.Helper()
	n.daemon.signal(t, syscall.SIGKILL)
	if out, err := n.daemon.wait(patience); err != nil || out.Code != 128+9 {
		t.Fatalf("kill the daemon: %s, %v", out, err)
	}
	n.serve(t)
}

// serving reports why the node does not serve, in whatever state, or nil.
func (n *node) serving(t testing.TB) error {
	s, err := n.status(t)
	if err == nil && s.Role != "primary" {
		err = fmt.Errorf("%s is %s: %s", n.name, s.State, s.Reason)
	}
	return err
}

// lastEvent is the number of the node's last event.
func (n *node) lastEvent(t testing.TB) uint64 {
	t.Helper()
	all := n.events(t, 0)
	if len(all) == 0 {
		return 0
	}
	return all[len(all)-1].Sequence
}

// stepsUp are the steps by which the node brought the service up since an event, with
// the time that each took.
func (n *node) stepsUp(t testing.TB, since uint64) string {
	t.Helper()
	var parts []string
	for _, e := range n.events(t, since) {
		if e.Kind == "step" && e.New == "up" {
			parts = append(parts, e.Old+" "+strings.TrimPrefix(e.Reason, "took "))
		}
	}
	return strings.Join(parts, ", ")
}

// rows is a client outside that inserts rows, and knows which were committed.
type rows struct {
	cluster *cluster
	stop    context.CancelFunc
	working sync.WaitGroup

	mu        sync.Mutex
	committed []int
	ended     []time.Time // when each was
	failed    int
	why       error // the last one failed
}

func (c *cluster) newRows(t testing.TB) *rows {
	t.Helper()
	r := &rows{cluster: c}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	harness.WaitFor(t, "a table", patience, func() error {
		_, err := r.query(ctx, "create table if not exists ledger (id int primary key)")
		return err
	})
	r.working.Go(func() {
		for id := 1; ctx.Err() == nil; id++ {
			_, err := r.query(ctx, fmt.Sprintf("insert into ledger values (%d)", id))
			if ctx.Err() == nil {
				r.note(id, err)
			}
		}
	})
	t.Cleanup(r.halt)
	return r
}

func (r *rows) note(id int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.failed, r.why = r.failed+1, err
		return
	}
	r.committed = append(r.committed, id)
	r.ended = append(r.ended, time.Now())
}

func (r *rows) halt() {
	r.stop()
	r.working.Wait()
}

// query asks PostgreSQL at the virtual address. It connects anew each time, and gives
// up after a time in which whatever happened to its connection has become clear.
func (r *rows) query(ctx context.Context, text string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "psql", "--no-psqlrc", "-qAt", "-h", virtual, "-U", "postgres", "-c", text)
	cmd.Env = append(os.Environ(), "PGCONNECT_TIMEOUT=4", "PGOPTIONS=-c statement_timeout=12s")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := r.cluster.outside.start(cmd); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

func (r *rows) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.committed)
}

func (r *rows) failures() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

func (r *rows) lastFailure() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fmt.Sprint(r.why)
}

// gapSince is the longest time in which nothing was committed, since a moment.
func (r *rows) gapSince(moment time.Time) (longest time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := moment
	for _, at := range r.ended {
		if at.After(moment) {
			longest, last = max(longest, at.Sub(last)), at
		}
	}
	return longest
}

// waitMore waits until a row was committed that was begun after so many were. The one
// that comes next may have been on the way.
func (r *rows) waitMore(t testing.TB, than int) {
	t.Helper()
	harness.WaitFor(t, "rows to be committed", 3*patience, func() error {
		if n := r.count(); n < than+2 {
			return fmt.Errorf("%d are, of %d", n, than+2)
		}
		return nil
	})
}

// compare holds that all rows that were committed by now are there.
func (r *rows) compare(t testing.TB) {
	t.Helper()
	r.mu.Lock()
	committed := r.committed[:len(r.committed):len(r.committed)]
	r.mu.Unlock()
	var text string
	harness.WaitFor(t, "the table to be read", patience, func() (err error) {
		text, err = r.query(t.Context(), "select id from ledger")
		return err
	})
	if missing := harness.MissingRows(text, committed); missing > 0 {
		t.Fatalf("%d of %d committed rows are gone", missing, len(committed))
	}
	t.Logf("%d rows were committed, and are there", len(committed))
}
