// SPDX-License-Identifier: Apache-2.0

package application

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// until waits for a condition that is to come true.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

func untilExists(t *testing.T, path string) {
	t.Helper()
	until(t, filepath.Base(path)+" appears", func() bool { return exists(path) })
}

// duration is an argument for sleep(1) by which its process is recognised
// whatever became of its environment, session and parent.
func duration() string { return fmt.Sprintf("100.%08d1", rand.IntN(1e8)) }

// sleeping are the processes, zombies aside, with that argument.
func sleeping(t *testing.T, duration string) (found []Process) {
	t.Helper()
	all, err := pids()
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range all {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || !bytes.Equal(line, []byte("sleep\x00"+duration+"\x00")) {
			continue
		}
		if p, _, ok := look(pid); ok {
			found = append(found, p)
		}
	}
	return found
}

// modes are the two ways to know a service's processes.
func modes(t *testing.T, test func(*testing.T, *Runner)) {
	t.Run("scan", func(t *testing.T) { test(t, newRunner(t, "")) })
	t.Run("cgroup", func(t *testing.T) { test(t, newRunner(t, newCgroup(t))) })
}

// newCgroup makes room for a service in a cgroup v2, or skips the test.
func newCgroup(t *testing.T) string {
	t.Helper()
	mounts, err := readMounts()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mounts {
		if m.kind != "cgroup2" {
			continue
		}
		dir, err := os.MkdirTemp(m.at, "twinbd-test-")
		if err != nil {
			continue
		}
		t.Cleanup(func() {
			if err := kill(cgroup(dir)); err != nil {
				t.Error(err)
			}
			for _, k := range []kind{application, passing, mounting} {
				c := cgroup(dir).of(k)
				runs, _ := filepath.Glob(filepath.Join(string(c), "run-*"))
				for _, run := range runs {
					_ = cgroup(run).remove()
				}
				_ = c.remove()
			}
			if err := cgroup(dir).remove(); err != nil {
				t.Errorf("remove the test's cgroup: %v", err)
			}
		})
		service := cgroup(dir)
		if err := service.prepare(); err != nil {
			t.Skipf("no usable cgroup v2: %v", err)
		}
		return dir
	}
	t.Skip("no cgroup v2 in which cgroups can be made (it takes root)")
	return ""
}

func newRunner(t *testing.T, cgroup string) *Runner {
	t.Helper()
	r, err := NewRunner(t.Context(), RunnerConfig{
		Service: "postgres", Node: "alpha", Instance: t.TempDir(), Cgroup: cgroup,
		Grace: 100 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	if (r.crowd.cgroup != "") != (cgroup != "") {
		t.Fatal("the cgroup is not used")
	}
	t.Cleanup(func() {
		for _, k := range []kind{passing, application, mounting} {
			if err := kill(r.herd(k)); err != nil {
				t.Error(err)
			}
		}
	})
	return r
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
