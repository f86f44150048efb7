// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The whole way with the real peers, as short as fio can be.
func TestMeasurePeers(t *testing.T) {
	for _, program := range []string{"fio", "nbdkit", "qemu-storage-daemon"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
	selected, err := selectJobs("w4k-q16,f4k-q1,r4k-q1", false)
	if err != nil {
		t.Fatal(err)
	}
	o := &options{names: []string{"nbdkit", "quorum"}, jobs: selected, rounds: 1, time: 100 * time.Millisecond, size: 16 << 20, cpu: -1}
	disks := t.TempDir()
	results, err := measureAll(t.Context(), o, disks, shortDir(t))
	if err != nil {
		t.Fatal(err)
	}
	sum := summarise(results)
	for _, name := range o.names {
		for _, j := range o.jobs {
			if f := sum[key{j.name, name}].best; f.Requests < 1 || f.IOPS <= 0 || f.P50 <= 0 || f.P99 < f.P50 {
				t.Errorf("%s on %s: %+v", j.name, name, f)
			}
		}
	}
	// A quorum that wrote to one side only would be a peer too fast to be true.
	far, err := os.ReadFile(filepath.Join(disks, "quorum", "far"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Trim(string(far), "\x00") == "" {
		t.Error("the far side of the quorum is still blank")
	}
}

// imposter answers as twinbd does, but serves one disk only and tells nobody.
const imposter = `#!/bin/sh
config=$2
[ "$3" = --node ] && node=$4 && shift 2
echo "$node $3 $4" >>"$(dirname "$config")/said"
case $3$4 in
serve) [ $node = alpha ] || exec sleep 1000
       exec nbdkit --foreground --unix "$(dirname "$config")/alpha/bench.sock" file \
         "$(sed -n 's/^disk = { alpha = "\([^"]*\)".*/\1/p' "$config")" ;;
status) grep -q "^$node serve" "$(dirname "$config")/said" ;; # it answers once it runs
status--exit-code) [ $node = alpha ] && exit 13 || exit 14 ;;
esac
`

// A pair is started in order, and one that does not replicate is found out.
func TestPairThatDoesNotReplicate(t *testing.T) {
	for _, program := range []string{"fio", "nbdkit"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
	binary := filepath.Join(t.TempDir(), "twinbd")
	if err := os.WriteFile(binary, []byte(imposter), 0o700); err != nil {
		t.Fatal(err)
	}
	selected, err := selectJobs("w4k-q16", false)
	if err != nil {
		t.Fatal(err)
	}
	o := &options{twinbd: binary, names: []string{"twinbd"}, jobs: selected, rounds: 1, time: 100 * time.Millisecond, size: 16 << 20, cpu: -1, tls: true}
	work := shortDir(t)
	_, err = measureAll(t.Context(), o, t.TempDir(), work)
	if err == nil || !strings.Contains(err.Error(), "the disks of the pair differ") {
		t.Errorf("a pair that does not replicate: %v", err)
	}
	said, err := os.ReadFile(filepath.Join(work, "twinbd", "said"))
	if err != nil {
		t.Fatal(err)
	}
	next := 0
	for _, step := range []string{" init ", "alpha create --blank", "beta create --blank", "beta serve ", "alpha serve ", "alpha prim bench"} {
		at := strings.Index(string(said)[next:], step)
		if at < 0 {
			t.Fatalf("%q is missing after byte %d of:\n%s", step, next, said)
		}
		next += at
	}
}

// shortDir is a directory whose name leaves room for a Unix socket's.
func shortDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestProcessEnds(t *testing.T) {
	p, err := startProcess(t.TempDir(), "sleeper", []string{"sleep", "1000"})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.stop(); err != nil {
		t.Error(err)
	}
	if err := syscall.Kill(p.cmd.Process.Pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process still there: %v", err)
	}
	if err := p.stop(); err != nil {
		t.Errorf("stop again: %v", err)
	}
}

// A server that ends at once is reported with its own last words, and long
// before patience is over.
func TestReadyReportsDeath(t *testing.T) {
	p, err := startProcess(t.TempDir(), "failer", []string{"sh", "-c", "echo first; echo port in use >&2; exit 3"})
	if err != nil {
		t.Fatal(err)
	}
	never := errors.New("not yet")
	err = p.ready(t.Context(), func() error { return never })
	if err == nil || !strings.Contains(err.Error(), "port in use") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("ready: %v", err)
	}
}
