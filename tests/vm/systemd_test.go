// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vm

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twinbd/twinbd/tests/harness"
)

const (
	unitFile = "/opt/twinbd.service"
	bootFile = "/opt/boot-systemd"
	unitLog  = "/tmp/twinbd.log"
)

// systemd is one in a machine, beside its init, with mounts of its own.
type systemd struct {
	node *node
	pid  string
}

// TestSystemdRestart: systemd restarts the daemon under a file system that is mounted,
// while programs write. The next process goes on with the kernel's connections, and
// nobody sees an error.
func TestSystemdRestart(t *testing.T) {
	c := newMounted(t, options{size: 64 << 20, pace: `{ heartbeat = "1s", timeout = "20s" }`, files: files{
		unitFile: {[]byte(harness.Unit(t, "/usr/local/bin/twinbd serve", unitLog)), 0o644},
		bootFile: {[]byte(harness.BootSystemd), 0o644},
	}}, "true")
	n := c.waitServing(t)
	n.endDaemon(t)
	s := n.bootSystemd(t)
	s.must(t, "systemctl", "start", "twinbd")
	c.waitPair(t, c.other(n))
	c.other(n).must(t, "twinbd", "switch", serviceName)
	c.waitPair(t, n)

	writers := n.start(t, nil, nil, s.within("sh", "-euc", writersScript)...)
	process := s.process(t)
	for range 3 {
		n.waitWritten(t)
		before, began := s.wentOn(t), time.Now()
		s.must(t, "systemctl", "restart", "twinbd")
		n.waitWritten(t)
		t.Logf("restarted, and writes went on, within %v", time.Since(began).Round(10*time.Millisecond))
		if went := s.wentOn(t); went != before+1 {
			t.Errorf("after a restart %d processes have gone on, want %d\n%s", went, before+1, n.shell(t, "tail -20 "+unitLog))
		}
		c.waitPair(t, n)
		if next := s.process(t); next == process {
			t.Error("the process is the same after a restart")
		} else {
			process = next
		}
	}
	n.must(t, "touch", "/tmp/stop")
	if out, err := writers.wait(patience); err != nil || out.Code != 0 {
		t.Errorf("programs that wrote meanwhile: %s, %v", out, err)
	}
	c.checkFiles(t)
}

func (n *node) bootSystemd(t testing.TB) *systemd {
	t.Helper()
	n.shell(t, "mkdir -p /run/twinbd; mount -t cgroup2 none /sys/fs/cgroup")
	boot := n.start(t, nil, nil, "sh", "-euc", `exec unshare --pid --fork --kill-child --mount --uts sh -euc "$(cat `+bootFile+`)" sh `+unitFile)
	s := &systemd{node: n}
	harness.WaitFor(t, "systemd on "+n.name, patience, func() error {
		if out, err := boot.wait(0); err == nil {
			t.Fatalf("systemd has ended: %s", out)
		}
		s.pid = strings.TrimSpace(n.run(t, "pgrep", "-o", "-f", "^/lib/systemd/systemd --system").Stdout)
		if s.pid == "" {
			return errors.New("it is not there")
		}
		if out := n.run(t, s.within("systemctl", "is-system-running")...); out.Code != 0 {
			return fmt.Errorf("it is not ready: %s", out)
		}
		return nil
	})
	return s
}

// within makes a command one where systemd is.
func (s *systemd) within(argv ...string) []string {
	return append([]string{"nsenter", "--target", s.pid, "--pid", "--mount"}, argv...)
}

func (s *systemd) must(t testing.TB, argv ...string) string {
	t.Helper()
	return strings.TrimSpace(s.node.must(t, s.within(argv...)...))
}

func (s *systemd) process(t testing.TB) string {
	t.Helper()
	return s.must(t, "systemctl", "show", "--value", "--property=MainPID", "twinbd")
}

// wentOn is how many processes have gone on where another stopped.
func (s *systemd) wentOn(t testing.TB) int {
	t.Helper()
	count, err := strconv.Atoi(strings.TrimSpace(s.node.shell(t, "grep -c '"+wentOn+"' "+unitLog+" || true")))
	if err != nil {
		t.Fatal(err)
	}
	return count
}
