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

// Each sign is one result, + or -, or a restart that did not succeed, !; the
// answers are those of verdict in order: . r F R.
func TestCounter(t *testing.T) {
	for _, test := range []struct {
		failures, restarts, forget int
		results, want              string
	}{
		{3, 2, 5, "++++", "...."},
		{3, 2, 5, "--+--+--+", "........."}, // never three in a row
		{3, 2, 5, "---", "..r"},             //
		{3, 2, 5, "---" + "---" + "---", "..r" + "..r" + "..F"},
		{3, 2, 5, "---+---+---", "..r...r...F"},       // a good result between does not give the restarts back
		{3, 2, 5, "---+++++---", "..r.......r"},       // forgotten after five
		{3, 1, 5, "---+++++------", "..r.......r..F"}, //
		{1, 0, 5, "-", "F"},                           //
		{1, 0, 5, "-----+-", "F....RF"},               // said once, and again after it was better
		{1, 1, 2, "--+-", "rFRF"},                     // recovered, but the restart is used up still
		{1, 1, 2, "--++-", "rFR.r"},                   // and now it is forgotten
		{1, 2, 5, "-!!", "rrF"},                       // restarts that fail need no further checks
		{2, 0, 1, "-+-+--", ".....F"},
	} {
		c := counter{failures: test.failures, restarts: test.restarts, forget: test.forget}
		var got strings.Builder
		for _, sign := range test.results {
			v := goOn
			if sign == '!' {
				v = c.escalate()
			} else {
				v = c.observe(sign == '+')
			}
			got.WriteByte(".rFR"[v])
		}
		if got.String() != test.want {
			t.Errorf("%d failures, %d restarts, forget %d: %s gives %s, want %s",
				test.failures, test.restarts, test.forget, test.results, got.String(), test.want)
		}
	}
}

// watched is an application whose checks are scripted. The lock is for the race
// detector: it does not see that virtual time orders what goroutines do.
type watched struct {
	mu      sync.Mutex
	healthy bool
	probes  int
	log     []string
	restart error
}

func (w *watched) config() CheckConfig {
	return CheckConfig{
		Every: 5 * time.Second, Timeout: 3 * time.Second, Failures: 3, Restarts: 1,
		Probe: func(ctx context.Context) error {
			w.mu.Lock()
			w.probes++
			healthy := w.healthy
			w.mu.Unlock()
			if healthy {
				return nil
			}
			<-ctx.Done()
			return context.Cause(ctx)
		},
		Restart: func(_ context.Context, reason string) error {
			w.note(reason)
			return w.restart
		},
		Failed:    func(reason string) { w.note("failed: " + reason) },
		Recovered: func() { w.note("recovered") },
	}
}

func (w *watched) note(line string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, line)
}

func (w *watched) set(healthy bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.healthy = healthy
}

func (w *watched) checks() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.probes
}

func (w *watched) expect(t *testing.T, what string, want ...string) {
	t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if got := strings.Join(w.log, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("%s:\n%s\nwant\n%s", what, got, strings.Join(want, "\n"))
	}
	w.log = nil
}

// pass lets virtual time pass.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

const (
	checkFails = "took longer than its limit of 3s"
	restarted  = "restart 1 of 1 after 3 failed checks in a row: " + checkFails
	gaveUp     = "failed: the application failed and 1 restarts did not help: " + checkFails
)

func TestChecker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &watched{healthy: true}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go NewChecker(w.config()).Run(ctx)
		pass(time.Minute + time.Millisecond)
		if w.checks() != 12 {
			t.Errorf("%d checks in a minute", w.checks())
		}
		w.set(false)
		pass(3*8*time.Second - time.Second)
		w.expect(t, "before the third failure")
		pass(time.Second)
		w.expect(t, "after it", restarted)
		pass(3 * 8 * time.Second)
		w.expect(t, "when the restart did not help", gaveUp)
		pass(time.Hour)
		w.expect(t, "later")
		w.set(true)
		pass(10 * time.Second)
		w.expect(t, "when it is better", "recovered")
		cancel()
		synctest.Wait()
		before := w.checks()
		pass(time.Hour)
		if w.checks() != before {
			t.Error("checked after the term's end")
		}
	})
}

func TestCheckerForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &watched{}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go NewChecker(w.config()).Run(ctx)
		for range 3 {
			w.set(false)
			pass(3*8*time.Second + time.Millisecond)
			w.expect(t, "bad", restarted)
			w.set(true)
			pass(DefaultForget + 5*time.Second)
			w.expect(t, "long good")
		}
	})
}

func TestCheckerPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &watched{}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		c := NewChecker(w.config())
		go c.Run(ctx)
		pass(2*8*time.Second + 6*time.Second) // in the midst of the third failing check
		c.Pause(true)
		c.Pause(true)
		synctest.Wait()
		before := w.checks()
		pass(time.Hour)
		w.expect(t, "paused")
		if w.checks() != before {
			t.Errorf("%d checks while paused", w.checks()-before)
		}
		c.Pause(false)
		pass(3*8*time.Second - time.Millisecond)
		w.expect(t, "counts anew")
		pass(time.Millisecond)
		w.expect(t, "third failure after it", restarted)
	})
}

func TestCheckerFailingRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &watched{restart: errors.New("start command 1 exited with status 1")}
		config := w.config()
		config.Failures, config.Restarts = 1, 2
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go NewChecker(config).Run(ctx)
		pass(8 * time.Second)
		w.expect(t, "at the first failure",
			"restart 1 of 2 after a failed check: "+checkFails,
			fmt.Sprintf("restart 2 of 2 after a failed check: %v", w.restart),
			fmt.Sprintf("failed: the application failed and 2 restarts did not help: %v", w.restart))
	})
}

// What ends while a check or a restart runs is heard no more of.
func TestCheckerEndsQuietly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &watched{}
		ctx, cancel := context.WithCancel(t.Context())
		config := w.config()
		config.Failures, config.Restarts = 1, 1
		config.Restart = func(ctx context.Context, _ string) error { return heed(ctx) }
		done := make(chan struct{})
		go func() {
			NewChecker(config).Run(ctx)
			close(done)
		}()
		pass(9 * time.Second)
		cancel()
		<-done
		w.expect(t, "at the end")
	})
}

// A failure that comes up in a pause is told after it, if it is still one.
func TestCheckerPauseDuringRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &watched{}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		config := w.config()
		config.Failures = 1
		config.Restart = func(context.Context, string) error {
			<-time.After(10 * time.Second)
			return errors.New("does not start")
		}
		c := NewChecker(config)
		go c.Run(ctx)
		pass(9 * time.Second)
		c.Pause(true)
		pass(time.Hour)
		w.expect(t, "paused")
		c.Pause(false)
		pass(8*time.Second + 10*time.Second)
		w.expect(t, "resumed", "failed: the application failed and 1 restarts did not help: does not start")
	})
}
