// SPDX-License-Identifier: Apache-2.0

//go:build linux

package harness

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Database asks a database a thing, on a connection of its own, and gives up when it
// has become clear what happened to that.
type Database func(ctx context.Context, text string) (string, error)

// Rows is a client that inserts rows into a table, one transaction each, and knows
// which were committed.
type Rows struct {
	ask     Database
	stop    context.CancelFunc
	working sync.WaitGroup

	mu        sync.Mutex
	committed []int
	ended     []time.Time // when each was
	failed    int
	why       error // the last one failed
}

// NewRows makes the table, and a client that inserts until it is halted, or the test
// has ended.
func NewRows(t testing.TB, patience time.Duration, ask Database) *Rows {
	t.Helper()
	r := &Rows{ask: ask}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	WaitFor(t, "a table", patience, func() error {
		_, err := ask(ctx, "create table if not exists ledger (id int primary key)")
		return err
	})
	r.working.Go(func() {
		for id := 1; ctx.Err() == nil; id++ {
			_, err := ask(ctx, fmt.Sprintf("insert into ledger values (%d)", id))
			if ctx.Err() == nil {
				r.note(id, err)
			}
		}
	})
	t.Cleanup(r.Halt)
	return r
}

func (r *Rows) note(id int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.failed, r.why = r.failed+1, err
		return
	}
	r.committed = append(r.committed, id)
	r.ended = append(r.ended, time.Now())
}

// Halt ends the inserting.
func (r *Rows) Halt() {
	r.stop()
	r.working.Wait()
}

// Committed is how many rows were.
func (r *Rows) Committed() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.committed)
}

// Failed is how many transactions have, and why the last one did.
func (r *Rows) Failed() (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed, r.why
}

// Gap is the longest time since a moment in which nothing was committed.
func (r *Rows) Gap(since time.Time) (from, to time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := since
	for _, at := range r.ended {
		if at.After(since) {
			if at.Sub(last) > to.Sub(from) {
				from, to = last, at
			}
			last = at
		}
	}
	return from, to
}

// WaitMore waits until a row was committed that was begun after so many were: the one
// that comes next may have been on the way.
func (r *Rows) WaitMore(t testing.TB, patience time.Duration, than int) {
	t.Helper()
	WaitFor(t, "rows to be committed", patience, func() error {
		if n := r.Committed(); n < than+3 {
			return fmt.Errorf("%d are, of %d", n, than+3)
		}
		return nil
	})
}

// Compare holds that all rows that were committed by now are there.
func (r *Rows) Compare(t testing.TB, patience time.Duration) {
	t.Helper()
	r.mu.Lock()
	committed := r.committed[:len(r.committed):len(r.committed)]
	r.mu.Unlock()
	var text string
	WaitFor(t, "the table to be read", patience, func() (err error) {
		text, err = r.ask(t.Context(), "select id from ledger")
		return err
	})
	if missing := missingRows(text, committed); missing > 0 {
		t.Fatalf("%d of %d committed rows are gone", missing, len(committed))
	}
	t.Logf("%d rows were committed, and are there", len(committed))
}

// missingRows is how many of the rows are not in a table that was read, one number on
// each line.
func missingRows(table string, rows []int) (missing int) {
	there := make(map[string]bool)
	for id := range strings.Lines(table) {
		there[strings.TrimSpace(id)] = true
	}
	for _, id := range rows {
		if !there[strconv.Itoa(id)] {
			missing++
		}
	}
	return missing
}

// Ask runs a database's command, which start begins where its network is, and returns
// what it prints.
func Ask(cmd *exec.Cmd, start func(*exec.Cmd) error) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := start(cmd); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
