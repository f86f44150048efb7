// SPDX-License-Identifier: Apache-2.0

package node

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinbd/twinbd/control"
)

// Clocks that are twenty years apart: both nodes say so, and everything goes on as
// if they were not.
func TestClocksYearsApart(t *testing.T) {
	l := newLab(t, "1MiB")
	l.stop("beta")
	l.wall = map[string]func() time.Time{"beta": func() time.Time { return time.Now().AddDate(20, 0, 1) }}
	l.start("beta")
	l.pair()
	for name, want := range map[string]string{"alpha": "the clock of beta is 20 years ahead", "beta": "the clock of alpha is 20 years behind"} {
		l.until(name+" says so", func() bool {
			return slices.ContainsFunc(l.nodes[name].node.Status().Services[0].Problems, func(p control.Problem) bool {
				return p.Message == want && strings.Contains(p.Hint, "NTP")
			})
		})
		if !slices.ContainsFunc(l.nodes[name].node.events.Since(0), func(e control.Event) bool { return e.Kind == "clocks" && e.New == "apart" }) {
			t.Errorf("%s has no event of it", name)
		}
	}
	l.put("alpha", 0, fill(1, 4096))
	l.does("alpha", control.Action{Verb: "switch"})
	l.waitFor("beta", control.Primary)
	l.stop("beta")
	l.waitFor("alpha", control.Alone)
	l.put("alpha", 4096, fill(2, 4096))
	l.wall = nil
	l.start("beta")
	l.waitFor("alpha", control.Primary)
	l.until("alpha is content", func() bool { return len(l.nodes["alpha"].node.Status().Services[0].Problems) == 0 })
	l.equal()
}

// Beats that come late, after a freeze, are no clock that is behind.
func TestLateBeatsAreNoClock(t *testing.T) {
	l := newLab(t, "1MiB")
	n := l.nodes["alpha"].node
	for range lateBeats - 1 {
		n.compareClocks(time.Now().Add(-time.Hour))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.clocks != "" {
		t.Errorf("it says %q", n.clocks)
	}
}
