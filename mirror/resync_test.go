// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"testing"
	"time"
)

// TestResyncFollowsLatency: beside clients the number of runs under way rises
// while their writes are quick, falls while they are slow, and never to none.
func TestResyncFollowsLatency(t *testing.T) {
	e := newScript(t).a.engine
	r := &e.resync
	r.beside = 1
	for _, step := range []struct {
		latency time.Duration
		rounds  int
		want    int
	}{
		{quickAnswer / 2, 3, 4},
		{quickAnswer / 2, 100, besideRuns},
		{(quickAnswer + slowAnswer) / 2, 100, besideRuns},
		{2 * slowAnswer, 2, besideRuns - 2},
		{2 * slowAnswer, 100, 1},
	} {
		for range step.rounds {
			e.window.latency = step.latency
			r.adapt()
		}
		if r.beside != step.want {
			t.Errorf("after %d answers in %v: %d runs, want %d", step.rounds, step.latency, r.beside, step.want)
		}
	}
}
