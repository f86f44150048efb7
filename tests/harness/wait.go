// SPDX-License-Identifier: Apache-2.0

//go:build linux

package harness

import (
	"testing"
	"time"
)

// WaitFor asks until try returns nil, and fails the test with the last error when
// that has not come in time. It returns how long it took.
func WaitFor(t testing.TB, what string, limit time.Duration, try func() error) time.Duration {
	t.Helper()
	began := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		took := time.Since(began)
		if err == nil {
			return took
		}
		if took > limit {
			t.Fatalf("wait for %s: not within %v: %v", what, limit, err)
		}
		<-tick.C
	}
}

// Elapse lets the processes of a lab run for a while. It is for tests that break
// something at a random moment, never to wait for something.
func Elapse(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
}
