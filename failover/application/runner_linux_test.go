// SPDX-License-Identifier: Apache-2.0

package application

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestOutcomes(t *testing.T) {
	modes(t, func(t *testing.T, r *Runner) {
		for _, test := range []struct {
			line, argv0 string
			limit       time.Duration
			want        string // "": it succeeds
		}{
			{line: "true"},
			{line: "exit 0; false"},
			{line: "false", want: `c ("false") exited with status 1`},
			{line: "echo one; echo two >&2; exit 7", want: `c ("echo one; echo two >&2; exit 7") exited with status 7: two`},
			{line: "no-such-program", want: `c ("no-such-program") exited with status 127, command not found: `}, // in the shell's words
			{line: "/dev/null", want: `exited with status 126, not executable`},
			{line: "kill -SEGV $$", want: `was killed by a signal from elsewhere (segmentation fault)`},
			{line: "echo waiting; sleep 100", limit: 100 * time.Millisecond, want: `did not end within 100ms and was killed: waiting`},
			{line: "trap 'exit 0' TERM; sleep 100 & wait", limit: 50 * time.Millisecond, want: `did not end within 50ms and was killed`},
			{argv0: "no-such-program", want: `was not started: exec: "no-such-program": executable file not found in $PATH`},
		} {
			c := Command{Name: "c", Action: ActionStart, Line: test.line, Limit: test.limit}
			if test.argv0 != "" {
				c.Argv = []string{test.argv0}
			}
			err := r.Run(t.Context(), Order{}, c)
			if got := fmt.Sprint(err); (test.want == "") != (err == nil) || err != nil && !strings.Contains(got, test.want) {
				t.Errorf("%s%s: %v, want %s", test.line, test.argv0, err, test.want)
			}
		}
	})
}

// However the processes of a command hide and resist, none is left when Run
// returns.
func TestNobodyEscapes(t *testing.T) {
	ignoring := `trap '' TERM; `
	for name, script := range map[string]string{
		"plain":           `sleep $D & wait`,
		"ignores SIGTERM": ignoring + `sleep $D & sleep $D & wait`,
		"double fork":     `(setsid sh -c "trap '' TERM; sleep $D" & ) ; while :; do sleep $D; done`,
		"new session":     `setsid -w setsid -w sleep $D & wait`,
		"no environment":  `env -i sleep $D & wait`,
		"own group":       `set -m; ` + ignoring + `sleep $D & wait`,
		"forks on":        ignoring + `for i in $(seq 200); do sleep $D & sleep 0.01; done`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			modes(t, func(t *testing.T, r *Runner) {
				duration := duration()
				ctx, cancel := context.WithCancelCause(t.Context())
				done := make(chan error, 1)
				script := strings.ReplaceAll(script, "$D", duration)
				go func() {
					done <- r.Run(ctx, Order{}, Command{Name: "c", Action: ActionCheck, Line: script})
				}()
				until(t, "the command has children", func() bool { return len(sleeping(t, duration)) > 0 })
				why := errors.New("enough")
				cancel(why)
				if err := <-done; !errors.Is(err, why) || !strings.Contains(err.Error(), "was ended: enough") {
					t.Errorf("ended with %v", err)
				}
				if left := sleeping(t, duration); len(left) > 0 {
					t.Errorf("left behind: %v", left)
				}
			})
		})
	}
}

// Only a cgroup holds who changes both session and environment.
func TestCgroupHoldsAll(t *testing.T) {
	r := newRunner(t, newCgroup(t))
	duration := duration()
	err := r.Run(t.Context(), Order{}, Command{
		Name: "c", Action: ActionCheck, Limit: 200 * time.Millisecond,
		Line: "env -i setsid sleep " + duration + " & wait",
	})
	if left := sleeping(t, duration); len(left) > 0 || err == nil {
		t.Errorf("ended with %v and left %v behind", err, left)
	}
}

// A command that ends by itself and is not to leave anything leaves nothing,
// and is not waited for longer because its children hold its output.
func TestPassingLeavesNothing(t *testing.T) {
	modes(t, func(t *testing.T, r *Runner) {
		duration := duration()
		err := r.Run(t.Context(), Order{}, Command{
			Name: "c", Action: ActionCheck, Line: "setsid sleep " + duration + " & echo said >&2; exit 3",
		})
		if err == nil || !strings.HasSuffix(err.Error(), "exited with status 3: said") {
			t.Error(err)
		}
		if left := sleeping(t, duration); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
}

// What a start command leaves behind stays, can go on printing, outlives the
// daemon's Runner, and is ended by End.
func TestApplicationStays(t *testing.T) {
	modes(t, func(t *testing.T, r *Runner) {
		duration := duration()
		spoken := filepath.Join(t.TempDir(), "spoken")
		line := fmt.Sprintf(`setsid sh -c 'trap "" TERM; echo here; head -c 1000000 /dev/zero; echo there && touch %s; sleep %s' & `, spoken, duration)
		if err := r.Run(t.Context(), Order{}, Command{Name: "c", Action: ActionStart, Line: line, Stays: true}); err != nil {
			t.Fatal(err)
		}
		untilExists(t, spoken)
		again, err := NewRunner(t.Context(), r.config)
		if err != nil {
			t.Fatal(err)
		}
		if err := again.Run(t.Context(), Order{}, Command{Name: "c", Action: ActionCheck, Line: "true"}); err != nil {
			t.Fatal(err)
		}
		until(t, "the application sleeps", func() bool { return len(sleeping(t, duration)) == 1 })
		found, err := again.End(t.Context(), Order{})
		if err != nil || len(found) == 0 {
			t.Errorf("found %v: %v", found, err)
		}
		if left := sleeping(t, duration); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		if found, err := again.End(t.Context(), Order{}); len(found) > 0 || err != nil {
			t.Errorf("the second time it found %v: %v", found, err)
		}
	})
}

// Another service's or node's application is not ours to end.
func TestOthersAreLeftAlone(t *testing.T) {
	r := newRunner(t, "")
	config := r.config
	config.Instance += "/other"
	other, err := NewRunner(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	duration := duration()
	if err := other.Run(t.Context(), Order{}, Command{Name: "c", Action: ActionStart, Line: "sleep " + duration + " &", Stays: true}); err != nil {
		t.Fatal(err)
	}
	if found, err := r.Kill(t.Context()); len(found) > 0 || err != nil {
		t.Errorf("killed %v: %v", found, err)
	}
	if found, err := other.Kill(t.Context()); len(found) != 1 || err != nil || len(sleeping(t, duration)) > 0 {
		t.Errorf("killed %v: %v", found, err)
	}
}

// A daemon that was killed leaves the commands that it ran; its successor ends
// them before it does anything.
func TestSuccessorEndsCommands(t *testing.T) {
	modes(t, func(t *testing.T, r *Runner) {
		duration := duration()
		run, err := r.start(Order{}, Command{Action: ActionCheck, Line: "sleep " + duration})
		if err != nil {
			t.Fatal(err)
		}
		until(t, "the command runs", func() bool { return len(sleeping(t, duration)) == 1 })
		if _, err := NewRunner(t.Context(), r.config); err != nil {
			t.Fatal(err)
		}
		if left := sleeping(t, duration); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		<-run.exited
		run.reap()
		r.retire(run)
	})
}

func TestFloodIsBounded(t *testing.T) {
	r := newRunner(t, "")
	err := r.Run(t.Context(), Order{}, Command{
		Name: "c", Action: ActionCheck, Line: "head -c 20000000 /dev/zero | tr '\\0' x; echo; echo the end; exit 1",
	})
	failed, ok := errors.AsType[*CommandError](err)
	if !ok || len(failed.Output) != keep || !strings.HasSuffix(failed.Output, "x\nthe end\n") {
		t.Errorf("kept %d bytes: %v", len(failed.Output), err)
	}
}

func TestSurroundings(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "/run/systemd/notify")
	t.Setenv("TWINBD_PEER", "from outside")
	t.Setenv("FOREIGN", "kept")
	r := newRunner(t, "")
	file := filepath.Join(t.TempDir(), "seen")
	leak, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer leak.Close()
	err = r.Run(t.Context(), Order{Epoch: 7, Reason: "the peer\nis gone"}, Command{
		Name: "c", Action: ActionFence, Peer: "beta",
		Line: `exec >` + file + `; env; pwd; readlink /proc/self/fd/0; ls -l /proc/$$/fd`,
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	for _, want := range []string{
		"TWINBD_SERVICE=postgres", "TWINBD_NODE=alpha", "TWINBD_EPOCH=7", "TWINBD_ACTION=fence",
		"TWINBD_REASON=the peer is gone", "TWINBD_PEER=beta", "FOREIGN=kept", "/", "/dev/null",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("%s is missing in:\n%s", want, text)
		}
	}
	if slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, "NOTIFY_SOCKET") }) {
		t.Error("the command could speak to systemd in the daemon's name")
	}
	if strings.Contains(string(text), "/dev/zero") {
		t.Errorf("the command has an open file of the daemon's:\n%s", text)
	}
}

func TestFence(t *testing.T) {
	r := newRunner(t, "")
	order := Order{Epoch: 3, Reason: "the peer does not answer"}
	if err := r.Fence(t.Context(), order, `test "$TWINBD_PEER" = beta`, "beta", time.Minute); err != nil {
		t.Error(err)
	}
	for line, want := range map[string]string{
		"echo no route; exit 1": "fence command (\"echo no route; exit 1\") exited with status 1: no route",
		"sleep 100":             "did not end within 50ms and was killed",
	} {
		if err := r.Fence(t.Context(), order, line, "beta", 50*time.Millisecond); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", line, err, want)
		}
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Fence(over, order, "true", "beta", time.Minute); !errors.Is(err, context.Canceled) {
		t.Errorf("fenced although it was called off: %v", err)
	}
}

func TestNewRunnerRefuses(t *testing.T) {
	for name, config := range map[string]RunnerConfig{
		"no service":  {Node: "alpha", Instance: "/x"},
		"no node":     {Service: "s", Instance: "/x"},
		"no instance": {Service: "s", Node: "alpha"},
	} {
		if _, err := NewRunner(t.Context(), config); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	// A cgroup that cannot be had is no reason not to serve.
	r, err := NewRunner(t.Context(), RunnerConfig{Service: "s", Node: "alpha", Instance: t.TempDir(), Cgroup: t.TempDir()})
	if err != nil || r.crowd.cgroup != "" {
		t.Errorf("cgroup %q: %v", r.crowd.cgroup, err)
	}
}

// A cgroup that somebody took away does not keep the application from being
// stopped.
func TestLostCgroup(t *testing.T) {
	r := newRunner(t, "")
	r.crowd.cgroup = cgroup(filepath.Join(t.TempDir(), "gone"))
	duration := duration()
	if err := r.Run(t.Context(), Order{}, Command{Name: "c", Action: ActionStart, Line: "sleep " + duration + " &", Stays: true}); err != nil {
		t.Error(err)
	}
	if found, err := r.End(t.Context(), Order{}); len(found) != 1 || err != nil || len(sleeping(t, duration)) > 0 {
		t.Errorf("ended %v: %v", found, err)
	}
}

func TestFindCgroup(t *testing.T) {
	dir, err := FindCgroup()
	if err != nil {
		t.Skip(err)
	}
	if self := strconv.Itoa(os.Getpid()); !slices.Contains(strings.Fields(read(t, filepath.Join(dir, "cgroup.procs"))), self) {
		t.Errorf("this process is not in %s", dir)
	}
}

// What a command wrote is kept though its reader comes late and the pipe has no
// end, because somebody else holds it.
func TestSettleCatchesUp(t *testing.T) {
	o, write, err := newOutput()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close()
	if _, err := write.WriteString(strings.Repeat("x", 60<<10) + "the end"); err != nil {
		t.Fatal(err)
	}
	if err := o.read.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	go o.drain()
	if got := o.settle(); len(got) != keep || !strings.HasSuffix(got, "the end") {
		t.Errorf("kept %d bytes", len(got))
	}
	if _, err := write.WriteString("and on"); err != nil {
		t.Error(err)
	}
	until(t, "the rest is read", func() bool { return strings.HasSuffix(o.tail.String(), "and on") })
}
