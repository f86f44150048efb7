// SPDX-License-Identifier: Apache-2.0

package application

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// stage is a service of three steps that writes down what happens to it.
type stage struct {
	mu     sync.Mutex
	log    []string
	events []StepEvent
	work   map[string]func(context.Context) error // "up b": instead of success
	force  bool                                   // the steps have a Force
}

func (s *stage) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	said := strings.Join(s.log, ", ")
	s.log = nil
	return said
}

func (s *stage) do(what string) Func {
	return func(ctx context.Context, order Order) error {
		s.mu.Lock()
		s.log = append(s.log, what)
		work := s.work[what]
		s.mu.Unlock()
		if work == nil {
			return nil
		}
		return work(ctx)
	}
}

func (s *stage) application() *Application {
	var steps []Step
	for _, name := range []string{"a", "b", "c"} {
		step := Step{Name: name, Up: s.do("up " + name), Down: s.do("down " + name), UpLimit: time.Minute, DownLimit: time.Minute, Application: name == "c"}
		if s.force {
			step.Force = s.do("force " + name)
		}
		steps = append(steps, step)
	}
	return New(Config{Steps: steps, Observe: func(e StepEvent) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.events = append(s.events, e)
	}})
}

func (s *stage) start(t *testing.T, a *Application, epoch uint64) *Term {
	t.Helper()
	term, err := a.Begin(t.Context(), epoch, "told to")
	if err != nil {
		t.Fatal(err)
	}
	if err := term.Up(); err != nil {
		t.Fatal(err)
	}
	return term
}

func expect(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\ngot  %s\nwant %s", what, got, want)
	}
}

func heed(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

func fails(context.Context) error { return errors.New("does not want to") }

func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stage{force: true, work: map[string]func(context.Context) error{"up b": func(context.Context) error {
			<-time.After(40 * time.Millisecond)
			return nil
		}}}
		a := s.application()
		term := s.start(t, a, 5)
		expect(t, "up", s.said(), "up a, up b, up c")
		if err := term.Restart("check failed"); err != nil {
			t.Error(err)
		}
		expect(t, "restart", s.said(), "down c, up c")
		if err := a.Down(t.Context(), 5, "told to", Clean); err != nil {
			t.Error(err)
		}
		expect(t, "down", s.said(), "down c, down b, down a")
		// A daemon that was restarted does not know what is up.
		if err := s.application().Down(t.Context(), 9, "not the holder", Forced); err != nil {
			t.Error(err)
		}
		expect(t, "forced", s.said(), "force c, force b, force a")
		if want := (StepEvent{"b", Up, 5, 40 * time.Millisecond, nil}); s.events[1] != want {
			t.Errorf("event %v, want %v", s.events[1], want)
		}
		if want := (StepEvent{"c", Force, 9, 0, nil}); s.events[8] != want {
			t.Errorf("event %v, want %v", s.events[8], want)
		}
	})
}

func TestFailingStartIsRolledBack(t *testing.T) {
	s := &stage{work: map[string]func(context.Context) error{"up b": fails}}
	a := s.application()
	term, err := a.Begin(t.Context(), 5, "")
	if err != nil {
		t.Fatal(err)
	}
	err = term.Up()
	expect(t, "error", fmt.Sprint(err), "start: b: does not want to")
	if step, ok := errors.AsType[*StepError](err); !ok || step.Step != "b" || step.Direction != Up {
		t.Errorf("%#v does not name the step", err)
	}
	expect(t, "steps", s.said(), "up a, up b, down b, down a")
	if term.Context().Err() == nil {
		t.Error("the term goes on")
	}
	s.work["down a"] = fails
	term, err = a.Begin(t.Context(), 5, "once more")
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "error", fmt.Sprint(term.Up()), "start: b: does not want to; undo a: does not want to")
	s.said()
	delete(s.work, "up b")
	s.start(t, a, 5)
}

func TestDownGoesOnPastFailures(t *testing.T) {
	s := &stage{work: map[string]func(context.Context) error{"down a": fails, "down c": fails}}
	err := s.application().Down(t.Context(), 5, "", Clean)
	expect(t, "error", fmt.Sprint(err), "stop: undo c: does not want to; undo a: does not want to")
	expect(t, "steps", s.said(), "down c, down b, down a")
}

func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stage{work: map[string]func(context.Context) error{"up b": heed, "down c": heed}}
		a := s.application()
		began := time.Now()
		term, _ := a.Begin(t.Context(), 5, "")
		err := term.Up()
		expect(t, "error", fmt.Sprint(err), "start: b: took longer than its limit of 1m0s")
		err = a.Down(t.Context(), 5, "", Forced) // no Force: Down, shortly
		expect(t, "error", fmt.Sprint(err), "stop: undo c: took longer than its limit of 5s")
		if took := time.Since(began); took != time.Minute+DefaultForceLimit {
			t.Errorf("took %v", took)
		}
	})
}

func TestStaleOrders(t *testing.T) {
	s := &stage{}
	a := s.application()
	late, err := a.Begin(t.Context(), 5, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Down(t.Context(), 6, "another holds it", Forced); err != nil {
		t.Fatal(err)
	}
	s.said()
	if err := late.Up(); !errors.Is(err, ErrForced) {
		t.Errorf("a late start: %v", err)
	}
	if err := late.Restart("check failed"); !errors.Is(err, ErrForced) {
		t.Errorf("a late restart: %v", err)
	}
	if _, err := a.Begin(t.Context(), 5, ""); !errors.Is(err, ErrStale) {
		t.Errorf("a start of an old epoch: %v", err)
	}
	term := s.start(t, a, 7)
	s.said()
	if err := a.Down(t.Context(), 6, "", Forced); !errors.Is(err, ErrStale) || term.Context().Err() != nil {
		t.Errorf("a stop of an old epoch: %v", err)
	}
	if _, err := a.Begin(t.Context(), 8, ""); !errors.Is(err, ErrBusy) {
		t.Errorf("a start of what is up: %v", err)
	}
	expect(t, "steps", s.said(), "")
}

// Down ends a start that is under way, and undoes it once.
func TestDownOvertakesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stage{work: map[string]func(context.Context) error{"up b": heed}}
		a := s.application()
		term, _ := a.Begin(t.Context(), 5, "")
		ended := make(chan error, 1)
		go func() { ended <- term.Up() }()
		synctest.Wait()
		if err := a.Down(t.Context(), 5, "", Clean); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, ErrEnded) {
			t.Error(err)
		}
		expect(t, "steps", s.said(), "up a, up b, down c, down b, down a")
	})
}

// A start whose caller goes away is rolled back: nobody else would do it.
func TestCancelledStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stage{work: map[string]func(context.Context) error{"up b": heed}}
		ctx, cancel := context.WithCancel(t.Context())
		term, _ := s.application().Begin(ctx, 5, "")
		ended := make(chan error, 1)
		go func() { ended <- term.Up() }()
		synctest.Wait()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		expect(t, "steps", s.said(), "up a, up b, down b, down a")
	})
}

func TestStopsAreSerialised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stage{work: map[string]func(context.Context) error{"down b": func(context.Context) error {
			<-time.After(time.Second)
			return nil
		}}}
		a := s.application()
		ended := make(chan error, 2)
		for range 2 {
			go func() { ended <- a.Down(t.Context(), 5, "", Clean) }()
		}
		synctest.Wait()
		if _, err := a.Begin(t.Context(), 5, ""); !errors.Is(err, ErrBusy) {
			t.Errorf("began while it is stopped: %v", err)
		}
		if err := errors.Join(<-ended, <-ended); err != nil {
			t.Error(err)
		}
		expect(t, "steps", s.said(), "down c, down b, down a, down c, down b, down a")
	})
}

// A forced stop waits neither for a clean one nor for a roll-back, whether its
// steps heed their contexts or not. Nothing begins while one that does not is
// still there.
func TestForceOvertakes(t *testing.T) {
	for name, stubborn := range map[string]bool{"heeding": false, "stubborn": true} {
		for _, rollback := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, roll-back %v", name, rollback), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { forceOvertakes(t, stubborn, rollback) })
			})
		}
	}
}

func forceOvertakes(t *testing.T, stubborn, rollback bool) {
	release := make(chan struct{})
	s := &stage{force: true, work: map[string]func(context.Context) error{
		"up c": fails,
		"down b": func(ctx context.Context) error {
			if stubborn {
				<-release
				return nil
			}
			return heed(ctx)
		},
	}}
	a := s.application()
	ended := make(chan error, 1)
	if rollback {
		term, _ := a.Begin(t.Context(), 5, "")
		go func() { ended <- term.Up() }()
	} else {
		go func() { ended <- a.Down(t.Context(), 5, "", Clean) }()
	}
	synctest.Wait()
	s.said()
	began := time.Now()
	if err := a.Down(t.Context(), 6, "another holds it", Forced); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, ErrForced) {
		t.Errorf("the clean one ended with %v", err)
	}
	expect(t, "steps", s.said(), "force c, force b, force a")
	want := time.Duration(0)
	if stubborn {
		want = forcedPatience
	}
	if took := time.Since(began); took != want {
		t.Errorf("took %v, want %v", took, want)
	}
	if _, err := a.Begin(t.Context(), 7, ""); stubborn != errors.Is(err, ErrBusy) || stubborn && !strings.Contains(err.Error(), "b of an earlier term has not returned") {
		t.Errorf("begin: %v", err)
	}
	close(release)
	synctest.Wait()
	if _, err := a.Begin(t.Context(), 7, ""); stubborn && err != nil {
		t.Errorf("begin when it has returned: %v", err)
	}
}

// The second forced stop does not cut the first one short.
func TestForceDoesNotOvertakeForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stage{force: true, work: map[string]func(context.Context) error{"force b": func(ctx context.Context) error {
			select {
			case <-time.After(time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}}}
		a := s.application()
		ended := make(chan error, 2)
		for range 2 {
			go func() { ended <- a.Down(t.Context(), 5, "", Forced) }()
		}
		if err := errors.Join(<-ended, <-ended); err != nil {
			t.Error(err)
		}
	})
}

func TestStopIsCalledOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stage{work: map[string]func(context.Context) error{"down c": heed}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := s.application().Down(ctx, 5, "", Clean)
		expect(t, "error", fmt.Sprint(err), "stop: undo c: context deadline exceeded; b was not undone: context deadline exceeded")
		expect(t, "steps", s.said(), "down c")
	})
}

func TestFailingRestart(t *testing.T) {
	s := &stage{work: map[string]func(context.Context) error{}}
	a := s.application()
	term := s.start(t, a, 5)
	s.said()
	s.work["down c"], s.work["up c"] = fails, fails
	expect(t, "error", fmt.Sprint(term.Restart("check failed")), "restart: undo c: does not want to; c: does not want to")
	if term.Context().Err() != nil {
		t.Error("the term has ended")
	}
	delete(s.work, "up c")
	if err := term.Restart("check failed"); err != nil {
		t.Error(err)
	}
	if got := s.said(); strings.ContainsAny(got, "ab") {
		t.Errorf("touched more than the application: %s", got)
	}
}
