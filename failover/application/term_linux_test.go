// SPDX-License-Identifier: Apache-2.0

package application

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A start script hangs, the term ends, the script is killed before the first
// step of the stop; what it would have done next is never done.
func TestLateScriptCannotAct(t *testing.T) {
	for how, cause := range map[How]error{Clean: ErrEnded, Forced: ErrForced} {
		modes(t, func(t *testing.T, r *Runner) {
			dir := t.TempDir()
			begun, gate, acted := filepath.Join(dir, "begun"), filepath.Join(dir, "gate"), filepath.Join(dir, "acted")
			duration := duration()
			script := `trap '' TERM; mkfifo ` + gate + `; sleep ` + duration + ` & touch ` + begun + `; read line <` + gate + `; touch ` + acted
			var left []Process
			a := New(Config{Steps: []Step{
				Commands{Runner: r, Start: []string{script}}.Step("application"),
				{Name: "look", Down: func(context.Context, Order) error {
					left = sleeping(t, duration)
					return nil
				}},
			}})
			term, err := a.Begin(t.Context(), 5, "took over")
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- term.Up() }()
			untilExists(t, begun)
			if err := a.Down(t.Context(), 6, "beta holds it", how); err != nil {
				t.Error(err)
			}
			if len(left) > 0 {
				t.Errorf("%v ran while the stop did", left)
			}
			if err := <-ended; !errors.Is(err, cause) {
				t.Error(err)
			}
			// The gate opens only for a script that still waits at it.
			if f, err := os.OpenFile(gate, os.O_WRONLY|syscall.O_NONBLOCK, 0); !errors.Is(err, syscall.ENXIO) {
				t.Errorf("somebody waits at the gate: %v, %v", f, err)
			}
			err = r.Run(t.Context(), term.Order(), Command{Name: "late", Line: "touch " + acted})
			if !errors.Is(err, cause) {
				t.Errorf("a command of an old term: %v", err)
			}
			if exists(acted) {
				t.Error("the old script acted")
			}
		})
	}
}

// However enter and finish race: what was started was waited for, and nothing
// starts after finish has returned.
func TestNothingStartsAfterTheEnd(t *testing.T) {
	for range 200 {
		s := newSpan(t.Context())
		order := Order{Epoch: 1, span: s}
		var mu sync.Mutex
		running, over := 0, false
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for {
					err := order.enter(func() error {
						mu.Lock()
						defer mu.Unlock()
						if over {
							t.Error("started after the end")
						}
						running++
						return nil
					})
					if err != nil {
						if !errors.Is(err, ErrEnded) {
							t.Error(err)
						}
						return
					}
					mu.Lock()
					running--
					mu.Unlock()
					order.leave()
				}
			})
		}
		s.finish(ErrEnded)
		mu.Lock()
		over = true
		mu.Unlock()
		s.wait(t.Context())
		mu.Lock()
		if running != 0 {
			t.Error("not waited for")
		}
		mu.Unlock()
		all.Wait()
	}
}

// A forced stop cuts the grace that a clean one gave.
func TestForceCutsTheGrace(t *testing.T) {
	r := newRunner(t, "")
	r.config.Grace = time.Hour
	begun := filepath.Join(t.TempDir(), "begun")
	duration := duration()
	a := New(Config{Patience: 2 * time.Hour, Steps: []Step{
		Commands{Runner: r, Stop: []string{`trap '' TERM; sleep ` + duration + ` & touch ` + begun + `; wait; wait; sleep ` + duration}}.Step("application"),
	}})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Down(ctx, 5, "told to", Clean) }()
	untilExists(t, begun)
	cancel() // SIGTERM, which it ignores, and an hour
	if err := a.Down(t.Context(), 5, "beta holds it", Forced); err != nil {
		t.Error(err)
	}
	if err := <-ended; err == nil || len(sleeping(t, duration)) > 0 {
		t.Errorf("the clean stop ended with %v, leaving %v", err, sleeping(t, duration))
	}
}

func TestCommandsStep(t *testing.T) {
	modes(t, func(t *testing.T, r *Runner) {
		log := filepath.Join(t.TempDir(), "log")
		duration := duration()
		note := func(what string) string { return `echo "` + what + ` $TWINBD_ACTION $TWINBD_EPOCH" >>` + log }
		step := Commands{
			Runner: r,
			Start:  []string{note("one"), note("two") + "; setsid sleep " + duration + " &"},
			Stop:   []string{"echo cannot >&2; false", note("three")},
		}.Step("application")
		a := New(Config{Steps: []Step{step}})
		term, err := a.Begin(t.Context(), 5, "told to")
		if err != nil {
			t.Fatal(err)
		}
		if err := term.Up(); err != nil {
			t.Fatal(err)
		}
		until(t, "the application runs", func() bool { return len(sleeping(t, duration)) == 1 })
		err = a.Down(t.Context(), 6, "told to", Clean)
		if err == nil || err.Error() != `stop: undo application: stop command 1 ("echo cannot >&2; false") exited with status 1: cannot` {
			t.Error(err)
		}
		if left := sleeping(t, duration); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		expect(t, "commands", read(t, log), "one start 5\ntwo start 5\nthree stop 6\n")
	})
}

func TestFailingStartCommandStopsTheList(t *testing.T) {
	r := newRunner(t, "")
	log := filepath.Join(t.TempDir(), "log")
	c := Commands{Runner: r, Start: []string{"echo 1 >>" + log, "exit 4", "echo 3 >>" + log}}
	err := c.start(t.Context(), Order{})
	if err == nil || !strings.HasPrefix(err.Error(), `start command 2 ("exit 4") exited with status 4`) {
		t.Error(err)
	}
	expect(t, "commands", read(t, log), "1\n")
}

// A check that is under way when the term ends is gone before the first step of
// the stop, though it is not one of the steps that take turns.
func TestDownOutlastsChecks(t *testing.T) {
	modes(t, func(t *testing.T, r *Runner) {
		duration := duration()
		var left []Process
		a := New(Config{Steps: []Step{{Name: "look", Down: func(context.Context, Order) error {
			left = sleeping(t, duration)
			return nil
		}}}})
		term, err := a.Begin(t.Context(), 5, "told to")
		if err != nil {
			t.Fatal(err)
		}
		if err := term.Up(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() {
			check := Commands{Runner: r}
			ended <- check.Check(term.Context(), term.Order(), "trap '' TERM; sleep "+duration+" & wait")
		}()
		until(t, "the check runs", func() bool { return len(sleeping(t, duration)) == 1 })
		if err := a.Down(t.Context(), 5, "told to", Clean); err != nil {
			t.Error(err)
		}
		if len(left) > 0 {
			t.Errorf("%v ran while the stop did", left)
		}
		if err := <-ended; !errors.Is(err, ErrEnded) {
			t.Error(err)
		}
	})
}
