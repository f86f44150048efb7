// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/tests/harness"
)

// systemd is one of the test's own, the first process of a PID namespace.
type systemd struct {
	pid string // outside
}

func newSystemd(t *testing.T, unit string) *systemd {
	dir := t.TempDir()
	file := filepath.Join(dir, "twinbd.service")
	if err := os.WriteFile(file, []byte(unit), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command("sh", "-euc", `for one in $1; do echo $$ >$one/cgroup.procs; done
exec unshare --pid --fork --kill-child --mount --uts --ipc sh -euc "$2" sh "$3"`, "sh", strings.Join(controlGroups(t), " "), harness.BootSystemd, file)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // and with it all that is in the namespace
		_ = cmd.Wait()         // it was killed
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("systemd says:\n%s", text)
		}
	})
	s := new(systemd)
	harness.WaitFor(t, "systemd", patience, func() error {
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid))
		if s.pid = strings.TrimSpace(string(children)); err != nil || s.pid == "" {
			return errors.Join(err, errors.New("it is not there"))
		}
		if out, err := s.command("is-system-running").CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w", out, err)
		}
		return nil
	})
	return s
}

// controlGroups are new ones, below which systemd makes its own, and which go with the
// test: one in each hierarchy in which it begins, be it the unified one or both of the
// time before.
func controlGroups(t *testing.T) (groups []string) {
	name := fmt.Sprintf("twinbd-test-%d", os.Getpid())
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"} {
		if _, err := os.Stat(filepath.Join(root, "cgroup.procs")); err != nil {
			continue
		}
		group := filepath.Join(root, name)
		if err := os.Mkdir(group, 0o755); err != nil {
			t.Fatal(err)
		}
		groups = append(groups, group)
	}
	t.Cleanup(func() {
		harness.WaitFor(t, "nothing to be left in groups "+name, patience, func() error {
			left, err := filepath.Glob("/sys/fs/cgroup/*/" + name) // others may have come
			if left = append(left, groups...); err != nil {
				return err
			}
			left = slices.DeleteFunc(left, func(group string) bool {
				_ = exec.Command("find", group, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";").Run()
				_, err := os.Stat(group)
				return err != nil
			})
			if len(left) > 0 {
				return fmt.Errorf("there are %v", left)
			}
			return nil
		})
	})
	return groups
}

func (s *systemd) command(args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--target", s.pid, "--pid", "--mount", "systemctl"}, args...)...)
}

func (s *systemd) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := s.command(args...).CombinedOutput()
	if err != nil {
		t.Fatalf("systemctl %v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// A restart goes on where the process before it stopped: the application does not
// notice, and the peer does not serve. A stop hands the service over, and so does a
// restart with a configuration that could not start again.
func TestSystemd(t *testing.T) {
	harness.NeedRoot(t)
	harness.Need(t, "unshare", "nsenter", "systemctl")
	dir := t.TempDir()
	started, log := filepath.Join(dir, "started"), filepath.Join(dir, "log")
	lab := harness.NewPair(t, harness.Options{Service: fmt.Sprintf(
		"start = [\"sh -c 'sleep 1000 & echo $! >>%s'\"]\nstop = [\"true\"]", started)})
	lab.Alpha.Stop(t)
	lab.Beta.WaitServing(t)
	s := newSystemd(t, harness.Unit(t, fmt.Sprintf("%s --config %s --node alpha serve", harness.Binary(t), lab.ConfigFile()), log))
	t.Cleanup(func() {
		if text, _ := os.ReadFile(log); t.Failed() {
			t.Logf("alpha says:\n%s", text)
		}
	})
	s.must(t, "start", "twinbd")
	is := func(state control.State) {
		t.Helper()
		harness.WaitFor(t, fmt.Sprintf("alpha to be %v", state), patience, func() error {
			status, err := lab.Alpha.Status()
			if err != nil {
				return err
			}
			if s := status.Service(harness.Service); s.State != state || s.Colour != control.Ready {
				return fmt.Errorf("it is %v: %s", s.State, s.Reason)
			}
			return nil
		})
	}
	starts := func() int {
		text, err := os.ReadFile(started)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(text), "\n")
	}
	process := func() string { return s.must(t, "show", "--value", "--property=MainPID", "twinbd") }
	is(control.Secondary)
	lab.Beta.MustRun(t, "switch", harness.Service)
	is(control.Primary)

	before, last := starts(), process()
	for range 3 {
		began := time.Now()
		s.must(t, "restart", "twinbd")
		is(control.Primary)
		t.Logf("restarted, a pair after %v", time.Since(began).Round(time.Millisecond))
		if next := process(); next == last {
			t.Error("the process is the same after a restart")
		} else {
			last = next
		}
	}
	if n := starts() - before; n != 0 {
		t.Errorf("the application was started %d times in three restarts", n)
	}

	good := lab.Config()
	lab.WriteConfig(t, good+"\n[nonsense]\n")
	if out, err := s.command("restart", "twinbd").CombinedOutput(); err == nil {
		t.Errorf("a node that could not start was restarted: %s", out)
	}
	lab.Beta.WaitServing(t)
	lab.WriteConfig(t, good)
	s.must(t, "reset-failed", "twinbd")
	s.must(t, "start", "twinbd")
	is(control.Secondary)
	lab.Beta.MustRun(t, "switch", harness.Service)
	is(control.Primary)

	before = starts()
	s.must(t, "stop", "twinbd")
	lab.Beta.WaitServing(t)
	if n := starts() - before; n != 1 {
		t.Errorf("the application was started %d times because of a stop, want once, at beta", n)
	}
}
