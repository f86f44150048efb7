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
	"testing"
	"time"

	"github.com/twinbd/twinbd/tests/harness"
)

// rows is a client outside that inserts rows, one transaction each, and knows which
// were committed.
type rows struct {
	cluster  *cluster
	database database
	stop     context.CancelFunc
	working  sync.WaitGroup

	mu        sync.Mutex
	committed []int
	ended     []time.Time // when each was
	failed    int
	why       error // the last one failed
}

func (c *cluster) newRows(t testing.TB, d database) *rows {
	t.Helper()
	r := &rows{cluster: c, database: d}
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

// query asks the database at the virtual address. It connects anew each time, and gives
// up after a time in which whatever happened to its connection has become clear.
func (r *rows) query(ctx context.Context, text string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	argv := r.database.client
	cmd := exec.CommandContext(ctx, argv[0], append(argv[1:len(argv):len(argv)], text)...)
	cmd.Env = append(os.Environ(), r.database.clientEnv...)
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
func (r *rows) gapSince(moment time.Time) (from, to time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := moment
	for _, at := range r.ended {
		if at.After(moment) {
			if at.Sub(last) > to.Sub(from) {
				from, to = last, at
			}
			last = at
		}
	}
	return from, to
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
