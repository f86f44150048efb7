// SPDX-License-Identifier: Apache-2.0

//go:build linux

package power

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/twinbd/twinbd/tests/harness"
)

// kept is how many rows the table has at most; each commit beyond deletes one.
const kept = 400

// database is an SQLite on an ext4 on the pair. Commit n adds row n and counts it in
// another table, so the commits before n say all that must be there after n.
type database struct {
	dir string // for what is mounted

	device    *device
	formatted bool
	shell     *exec.Cmd
	input     io.WriteCloser
	said      strings.Builder // of the shell, on stderr
	writing   sync.WaitGroup

	mu        sync.Mutex
	committed int  // answered
	asked     int  // committed, or one more that may be
	quit      bool // the writer is to end
	err       error
}

// file is the path of the database.
func (d *database) file() string { return filepath.Join(d.device.at, "ledger.db") }

// open mounts the export, whose journal is replayed, holds the database against what
// is known of it, and goes on committing.
func (d *database) open(t testing.TB, random *rand.Rand, uri string) {
	t.Helper()
	d.device = attach(t, filepath.Join(d.dir, "export.fuse"), uri)
	if !d.formatted {
		harness.MustRun(t, "mkfs.ext4", "-q", d.device.name)
	}
	d.device.mount(t, filepath.Join(d.dir, "mount"))
	if !d.formatted {
		d.query(t, "create table ledger(id integer primary key, payload text); create table total(commits integer); insert into total values(0);")
		d.formatted = true
	}
	d.check(t)
	d.begin(t, []string{"wal", "delete", "truncate"}[random.IntN(3)])
}

// query runs statements in a shell of their own.
func (d *database) query(t testing.TB, text string) string {
	t.Helper()
	return harness.MustRun(t, "sqlite3", "-batch", "-bail", "-noheader", "-list", d.file(), "pragma synchronous = extra; "+text)
}

// begin starts a shell that commits row after row.
func (d *database) begin(t testing.TB, journal string) {
	t.Helper()
	d.shell = exec.Command("sqlite3", "-batch", "-bail", "-noheader", "-list", d.file())
	d.said.Reset()
	d.shell.Stderr = &d.said
	output, err := d.shell.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if d.input, err = d.shell.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := d.shell.Start(); err != nil {
		t.Fatal(err)
	}
	d.quit, d.err = false, nil
	d.writing.Go(func() { d.setError(d.write(journal, d.input, bufio.NewScanner(output))) })
}

func (d *database) setError(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

// write commits until it is told to end, or the shell has ended. With "extra" SQLite
// also flushes the directory in which a journal was, which is a part of a commit.
func (d *database) write(journal string, input io.Writer, output *bufio.Scanner) error {
	text := fmt.Sprintf("pragma journal_mode = %s; pragma synchronous = extra; pragma wal_autocheckpoint = 50;\n", journal)
	for id := d.next(); id > 0; id = d.next() {
		text += fmt.Sprintf("begin; insert into ledger values(%d, '%s'); delete from ledger where id <= %d; update total set commits = %d; commit; ",
			id, payload(id), id-kept, id)
		answer := fmt.Sprint("committed ", id)
		if _, err := fmt.Fprintf(input, "%sselect '%s';\n", text, answer); err != nil {
			return err
		}
		for output.Text() != answer {
			if !output.Scan() {
				return errors.Join(io.ErrUnexpectedEOF, output.Err())
			}
		}
		d.answered(id)
		text = ""
	}
	return nil
}

// next is the number of the next commit, or 0 when there is to be none.
func (d *database) next() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.quit {
		return 0
	}
	d.asked = d.committed + 1
	return d.asked
}

func (d *database) answered(id int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.committed = id
}

// failed is what has ended the writer, if anything did.
func (d *database) failed() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// payload is what row id holds: up to 2 KB.
func payload(id int) string {
	return strings.Repeat(fmt.Sprintf("%d.", id*7919), 1+id*31%257)
}

// commits is how many there are.
func (d *database) commits() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.committed
}

// close ends the writer in good order and unmounts. Nothing may have failed.
func (d *database) close(t testing.TB) {
	t.Helper()
	d.mu.Lock()
	d.quit = true
	d.mu.Unlock()
	d.writing.Wait()
	d.input.Close()
	if err := errors.Join(d.err, d.shell.Wait()); err != nil {
		t.Errorf("SQLite on a healthy pair: %v\n%s", err, d.said.String())
	}
	d.device.detach(t)
	d.device = nil
}

// crash ends it as the end of its machine would. The export is gone.
func (d *database) crash(t testing.TB) {
	t.Helper()
	if d.device == nil {
		return
	}
	if d.shell != nil {
		_ = d.shell.Process.Kill()
		d.writing.Wait()
		_ = d.shell.Wait() // it was killed
		d.input.Close()
	}
	d.device.detach(t)
	d.device = nil
}

// check holds the database against the commits that were answered. The one that was
// under way has happened or not.
func (d *database) check(t testing.TB) {
	t.Helper()
	if got := strings.TrimSpace(d.query(t, "pragma integrity_check;")); got != "ok" {
		t.Errorf("pragma integrity_check says %q", got)
	}
	text := d.query(t, "select commits from total; select id, payload from ledger order by id;")
	rows := strings.Split(strings.TrimSpace(text), "\n")
	commits, err := strconv.Atoi(rows[0])
	if err != nil || commits < d.committed || commits > d.asked {
		t.Fatalf("%d commits were answered, %d asked for; the database has %q", d.committed, d.asked, rows[0])
	}
	first := max(1, commits-kept+1)
	if n := commits - first + 1; len(rows)-1 != n {
		t.Errorf("after %d commits the table has %d rows, want %d", commits, len(rows)-1, n)
	}
	for i, row := range rows[1:] {
		if want := fmt.Sprintf("%d|%s", first+i, payload(first+i)); row != want {
			t.Fatalf("after %d commits row %d is %.40q, want %.40q", commits, i, row, want)
		}
	}
	d.committed, d.asked = commits, commits
}
