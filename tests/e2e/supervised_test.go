// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twinbd/twinbd/tests/harness"
)

// supervisor hears what a daemon says to who started it.
type supervisor struct {
	path  string
	words chan string
}

func newSupervisor(t *testing.T) *supervisor {
	dir, err := os.MkdirTemp("", "twinbd") // short: a socket's path must fit
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &supervisor{path: filepath.Join(dir, "notify"), words: make(chan string, 1000)}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		for b := make([]byte, 4096); ; {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			s.words <- string(b[:n])
		}
	}()
	return s
}

// environment makes a command one that tells the supervisor, with a watchdog of half
// a second.
func (s *supervisor) environment() []string {
	return []string{"env", "NOTIFY_SOCKET=" + s.path, "WATCHDOG_USEC=500000"}
}

// expect waits for words in this order; others may come between.
func (s *supervisor) expect(t *testing.T, words ...string) {
	t.Helper()
	late := time.After(30 * time.Second)
	for _, want := range words {
		for got := ""; got != want; {
			select {
			case got = <-s.words:
			case <-late:
				t.Fatalf("the supervisor does not hear %q", want)
			}
		}
	}
}

// A node says when it is ready, that it lives, that it is being replaced, by the same
// process, and that it stops.
func TestSupervised(t *testing.T) {
	s := newSupervisor(t)
	l := harness.NewPair(t, harness.Options{})
	l.Alpha.Stop(t)
	l.Alpha.Within(s.environment()...)
	l.Alpha.Start(t)
	s.expect(t, "READY=1", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1")
	l.Alpha.Hangup(t)
	s.expect(t, "RELOADING=1", "READY=1", "WATCHDOG=1", "WATCHDOG=1")
	l.Alpha.Stop(t)
	s.expect(t, "STOPPING=1")
}

// A process that stands still says nothing, which is what a watchdog is for.
func TestSupervisedWitness(t *testing.T) {
	s := newSupervisor(t)
	argv := append(s.environment(), harness.Binary(t), "witness", "--insecure", "--listen", "127.0.0.1:0", "--state", t.TempDir())
	cmd := exec.Command(argv[0], argv[1:]...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.expect(t, "READY=1", "WATCHDOG=1", "WATCHDOG=1")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
}

// The units are sound, and confine what they start.
func TestUnits(t *testing.T) {
	harness.Need(t, "systemd-analyze")
	binary := harness.Binary(t)
	for unit, exposure := range map[string]string{"twinbd.service": "65", "twinbd-witness.service": "20"} { // tenths, of 100
		t.Run(unit, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("../../systemd", unit))
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), unit)
			if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(text), "/usr/local/bin/twinbd", binary)), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, argv := range [][]string{
				{"verify", "--man=no", file},
				{"security", "--offline=true", "--no-pager", "--threshold=" + exposure, file},
			} {
				if out, err := exec.Command("systemd-analyze", argv...).CombinedOutput(); err != nil {
					t.Errorf("systemd-analyze %v: %v\n%s", argv, err, out)
				}
			}
		})
	}
}
