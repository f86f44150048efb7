// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"context"
	"math"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Functions of one goroutine run in its order, each once, also those that were
// posted before Run and while the loop ends.
func TestPostFromMany(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			const goroutines, posts = 16, 2000
			var next [goroutines]int // owned by the loop's thread
			var accepted [goroutines]int
			l := New(k.o)
			ended := make(chan error, 1)
			l.Post(func() { next[0]++ })
			accepted[0] = 1
			go func() { ended <- l.Run(context.Background(), &idleCore{}) }()

			var all sync.WaitGroup
			for g := range goroutines {
				all.Go(func() {
					first := accepted[g]
					for i := first; i < posts; i++ {
						ok := l.Post(func() {
							if next[g] != i {
								t.Errorf("goroutine %d: %d ran in place of %d", g, i, next[g])
							}
							next[g]++
						})
						if !ok {
							return
						}
						accepted[g]++
						if g == 0 && i == posts/2 {
							l.Stop()
						}
					}
				})
			}
			all.Wait()
			if err := within(t, "end of Run", ended); err != nil {
				t.Fatal(err)
			}
			if next != accepted {
				t.Errorf("ran %v, accepted %v", next, accepted)
			}
		})
	}
}

// A post reaches a loop that sleeps, every time.
func TestPostWakes(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			l := start(t, k.o, &idleCore{})
			for range 300 {
				for deadline := time.Now().Add(10 * time.Second); !l.asleep.Load(); runtime.Gosched() {
					if time.Now().After(deadline) {
						t.Fatal("the loop does not sleep")
					}
				}
				on(t, l, func() {})
			}
		})
	}
}

// The core's turn comes at its deadline, not before, and the clock of the turn
// says so.
func TestDeadline(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			fired := make(chan time.Duration, 1)
			core := &idleCore{}
			due := 30 * time.Millisecond
			core.due = func() time.Duration { return due }
			core.turn = func(now time.Duration) {
				if now >= due {
					due = math.MaxInt64
					fired <- now
				}
			}
			l := start(t, k.o, core)
			now := within(t, "turn at the deadline", fired)
			if clock := l.Clock(); now < 30*time.Millisecond || clock < now {
				t.Errorf("turn at %v, clock %v", now, clock)
			}
			on(t, l, func() {
				if core.turns > 10 {
					t.Errorf("%d turns until one deadline", core.turns)
				}
			})
		})
	}
}

// A deadline in virtual time, to the nanosecond: the portable loop can be
// driven by synctest.
func TestDeadlineInBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		due := 10 * time.Second
		core := &idleCore{due: func() time.Duration { return due }}
		l := New(Options{Portable: true})
		core.turn = func(now time.Duration) {
			if now >= due {
				at = append(at, now)
				due += time.Minute
			}
			if len(at) == 3 {
				l.Stop()
			}
		}
		if err := l.Run(t.Context(), core); err != nil {
			t.Fatal(err)
		}
		for i, want := range []time.Duration{10 * time.Second, 70 * time.Second, 130 * time.Second} {
			if at[i] != want {
				t.Errorf("turn %d at %v, want %v", i, at[i], want)
			}
		}
	})
}

// A turn that does not end is seen from outside, and so is an end of the loop
// that does not.
func TestTurning(t *testing.T) {
	l := start(t, Options{}, &idleCore{})
	hangsSeen(t, l, func() {})
	last := New(Options{})
	last.Stop()
	ended := make(chan error, 1)
	hangsSeen(t, last, func() { go func() { ended <- last.Run(context.Background(), &idleCore{}) }() })
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func hangsSeen(t *testing.T, l *Loop, begin func()) {
	t.Helper()
	entered, leave := make(chan struct{}), make(chan struct{})
	l.Post(func() { close(entered); <-leave })
	begin()
	within(t, "turn", entered)
	for deadline := time.Now().Add(10 * time.Second); l.Turning() < 20*time.Millisecond; {
		if time.Now().After(deadline) {
			t.Fatal("the turn does not age")
		}
	}
	close(leave)
	for deadline := time.Now().Add(10 * time.Second); l.Turning() != 0; {
		if time.Now().After(deadline) {
			t.Fatal("the loop waits and seems to be turning")
		}
	}
}

func TestStopBeforeRun(t *testing.T) {
	for _, k := range kinds {
		l := New(k.o)
		l.Stop()
		if err := l.Run(context.Background(), &idleCore{}); err != nil {
			t.Errorf("%s: %v", k.name, err)
		}
	}
}
