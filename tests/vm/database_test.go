// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vm

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twinbd/twinbd/tests/harness"
)

// A database on a file system on /dev/nbd0 is what the project is for. A client
// inserts rows over the virtual address, one transaction each, and keeps a ledger of
// what was committed. While the daemon is replaced, and when it is killed and started
// again, no transaction fails. When the service moves, every committed row is there;
// how long that took is printed in its parts. At the end the database's own tools and
// those of the file system find no fault.

// database is one that a service runs, and how it is spoken to.
type database struct {
	script  string  // in testdata: start or stop
	options options // of the pair: room, pace, file system
	fill    string  // makes what the script starts, below /data

	client    []string // asks at the virtual address; the text comes last
	clientEnv []string

	// Scripts in the machine that serves. The load runs while the daemon is replaced
	// and killed; it fails if a transaction of its own does.
	prepare, load string
	sound         string // at the end: finds what is wrong, if anything is
}

func (d database) show(t *testing.T) {
	need(t)
	harness.Need(t, d.client[0])
	script, err := os.ReadFile("testdata/" + d.script)
	if err != nil {
		t.Fatal(err)
	}
	o, program := d.options, "/usr/local/bin/"+d.script
	o.service = fmt.Sprintf("start = [\"%[1]s start\"]\nstop = [\"%[1]s stop\"]", program)
	o.files = files{program: {script, 0o755}}
	c := newMounted(t, o, d.fill)
	serves := c.waitServing(t)
	rows := harness.NewRows(t, patience, d.askOf(c))
	serves.shell(t, d.prepare)
	load := serves.start(t, nil, nil, "sh", "-euc", d.load)
	c.keepOn(t, rows, serves)
	if out, err := load.wait(2 * patience); err != nil || out.Code != 0 {
		t.Errorf("what ran meanwhile: %s, %v", out, err)
	} else {
		t.Logf("what ran meanwhile:\n%s", out.Stdout)
	}
	serves = c.move(t, rows, serves)
	rows.Halt()
	serves.shell(t, d.sound)
	c.checkFiles(t)
}

// askOf asks the database of a cluster, at the virtual address.
func (d database) askOf(c *cluster) harness.Database {
	return func(ctx context.Context, text string) (string, error) {
		ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, d.client[0], append(d.client[1:len(d.client):len(d.client)], text)...)
		cmd.Env = append(os.Environ(), d.clientEnv...)
		return harness.Ask(cmd, c.outside.start)
	}
}

// keepOn has the daemon replaced, and killed: the service stays where it is, and no
// transaction fails.
func (c *cluster) keepOn(t testing.TB, rows *harness.Rows, serves *node) {
	t.Helper()
	for _, way := range []struct {
		name string
		do   func(*node, testing.TB)
	}{
		{"the daemon is replaced", (*node).replaceDaemon},
		{"the daemon is killed", (*node).killDaemon},
	} {
		before, _ := rows.Failed()
		fault := time.Now()
		way.do(serves, t)
		rows.WaitMore(t, 3*patience, rows.Committed())
		c.waitPair(t, serves)
		from, to := rows.Gap(fault)
		t.Logf("%s: nothing was committed for %v at most", way.name, to.Sub(from).Round(10*time.Millisecond))
		if n, why := rows.Failed(); n > before {
			t.Errorf("%s, and %d transactions fail: %v", way.name, n-before, why)
		}
		rows.Compare(t, patience)
	}
}

// move has the service leave its node in each way, and returns where it is at last.
func (c *cluster) move(t testing.TB, rows *harness.Rows, serves *node) *node {
	t.Helper()
	nothing := func(*node, testing.TB) {}
	var took timetable
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
		rows.WaitMore(t, 3*patience, rows.Committed())
		from, to := rows.Gap(fault)
		took.add(way.name, to.Sub(from), next.partsUp(t, since, from, to))
		way.mend(serves, t)
		c.waitPair(t, next)
		rows.Compare(t, patience)
		serves = next
	}
	t.Logf("without a commit, in its parts:\n%s", took.String())
	return serves
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

// part is a stretch of a takeover, as the event log of who takes over has it.
type part struct {
	name string
	took time.Duration
}

// Names of parts that are no step. Each lasts from the end of the one before it.
const (
	partDetection = "detection" // until the witness is asked
	partGrant     = "grant"     // until the right to serve is there; a handover's has no detection
	partVolumes   = "volumes"   // until they serve
	partCommit    = "first commit"
)

// partsUp takes a takeover by this node apart, which happened in a time of ours.
func (n *node) partsUp(t testing.TB, since uint64, from, to time.Time) (all []part) {
	t.Helper()
	behind := n.behind(t)
	seen, last := make(map[string]bool), from
	end := func(name string, at time.Time) {
		if !seen[name] && at.After(from) && at.Before(to) {
			all = append(all, part{name, at.Sub(last)})
			seen[name], last = true, at
		}
	}
	for _, e := range n.events(t, since) {
		at := e.Time.Add(behind)
		switch {
		case e.Kind == "ask":
			end(partDetection, at)
		case e.Kind == "epoch":
			end(partGrant, at)
		case e.Kind == "role" && e.New == "primary":
			end(partVolumes, at)
		case e.Kind == "step" && e.New == "up":
			end(strings.Fields(e.Old)[0], at)
		}
	}
	return append(all, part{partCommit, to.Sub(last)})
}

// behind is what must be added to the clock of the machine for ours: one that stood
// still is late. It is right to some hundredths of a second.
func (n *node) behind(t testing.TB) time.Duration {
	t.Helper()
	began := time.Now()
	text := n.must(t, "date", "+%s%N")
	var nanoseconds int64
	if _, err := fmt.Sscan(text, &nanoseconds); err != nil {
		t.Fatalf("%s says that it is %q: %v", n.name, text, err)
	}
	return began.Add(time.Since(began) / 2).Sub(time.Unix(0, nanoseconds))
}

// timetable is a table of takeovers, in seconds: a row for each, and the parts in the
// order in which they come.
type timetable struct {
	names []string
	rows  []timetableRow
}

type timetableRow struct {
	name  string
	whole time.Duration
	parts map[string]time.Duration
}

func (t *timetable) add(name string, whole time.Duration, parts []part) {
	row := timetableRow{name, whole, make(map[string]time.Duration)}
	at := 0 // where a part that no row had yet belongs
	for _, p := range parts {
		row.parts[p.name] = p.took
		if i := slices.Index(t.names, p.name); i >= 0 {
			at = i + 1
			continue
		}
		t.names = slices.Insert(t.names, at, p.name)
		at++
	}
	t.rows = append(t.rows, row)
}

func (t *timetable) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "| | seconds | %s |\n|%s\n", strings.Join(t.names, " | "), strings.Repeat(" --- |", len(t.names)+2))
	for _, row := range t.rows {
		fmt.Fprintf(&b, "| %s | %.2f |", row.name, row.whole.Seconds())
		for _, name := range t.names {
			if took, ok := row.parts[name]; ok {
				fmt.Fprintf(&b, " %.2f |", took.Seconds())
			} else {
				b.WriteString(" |")
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}
