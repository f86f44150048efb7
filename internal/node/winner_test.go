// SPDX-License-Identifier: Apache-2.0

package node

import (
	"testing"

	"github.com/twinbd/twinbd/failover"
	"github.com/twinbd/twinbd/mirror"
)

// A service has one winner, and both nodes find the same (rules 10, 22): what is
// Mine here is Theirs there.
func TestServiceHasOneWinner(t *testing.T) {
	var (
		mirrors  = mirror.Status{Session: mirror.Mirroring}
		newer    = mirror.Status{Session: mirror.Comparing, Source: true}
		older    = mirror.Status{Session: mirror.Comparing}
		copying  = mirror.Status{Session: mirror.Resyncing}
		first    = mirror.Status{Session: mirror.Comparing, Equals: true, Source: true}
		second   = mirror.Status{Session: mirror.Comparing, Equals: true}
		apart    = mirror.Status{Session: mirror.Disconnected}
		split    = mirror.Status{Session: mirror.Disconnected, Split: true}
		meeting  = mirror.Status{Session: mirror.Greeting}
		mirrored = map[failover.Winner]failover.Winner{failover.Mine: failover.Theirs, failover.Theirs: failover.Mine}
	)
	for _, c := range []struct {
		what   string
		a, b   mirror.Status
		holder bool
		want   failover.Winner
	}{
		{"nothing differs", mirrors, mirrors, true, failover.Same},
		{"one volume is newer here", newer, mirrors, false, failover.Mine},
		{"one volume is newer there", older, mirrors, true, failover.Theirs},
		{"one volume is being copied to here", copying, mirrors, true, failover.Theirs},
		{"equals are preferred here", first, mirrors, false, failover.Mine},
		{"equals are preferred there", second, mirrors, true, failover.Theirs},
		{"newer here beats a preference there", newer, second, false, failover.Mine},
		{"newer there beats a preference here", older, first, true, failover.Theirs},
		{"two preferences, the record names this node", first, second, true, failover.Mine},
		{"two preferences, the record names the other", first, second, false, failover.Theirs},
		{"one has not met", newer, apart, true, failover.NotMet},
		{"one is just meeting", newer, meeting, true, failover.NotMet},
		{"one is split", newer, split, true, failover.Split},
	} {
		here := Sum([]Seen{{Status: &c.a}, {Status: &c.b}}, c.holder)
		if here.Winner != c.want {
			t.Errorf("%s: %v, not %v", c.what, here.Winner, c.want)
		}
		there, want := Sum([]Seen{{Status: turn(c.a)}, {Status: turn(c.b)}}, !c.holder), c.want
		if w, ok := mirrored[want]; ok {
			want = w
		}
		if there.Winner != want {
			t.Errorf("%s: the other node finds %v, not %v", c.what, there.Winner, want)
		}
	}
}

// turn is what the other node says of a volume.
func turn(s mirror.Status) *mirror.Status {
	if s.Session == mirror.Comparing || s.Session == mirror.Resyncing {
		s.Source = !s.Source
	}
	return &s
}

// A node that is to give the service away owes its peer what only it has; a mere
// preference between equals is no debt.
func TestWhatThePeerIsOwed(t *testing.T) {
	var (
		mirrors = mirror.Status{Session: mirror.Mirroring}
		newer   = mirror.Status{Session: mirror.Comparing, Source: true}
		older   = mirror.Status{Session: mirror.Comparing}
		equal   = mirror.Status{Session: mirror.Comparing, Equals: true, Source: true}
		hosts   = mirror.Status{Session: mirror.Hosting}
	)
	for _, c := range []struct {
		a, b mirror.Status
		want bool
	}{{newer, older, true}, {mirrors, newer, true}, {equal, older, false}, {mirrors, older, false}, {hosts, mirrors, false}} {
		if got := Sum([]Seen{{Status: &c.a}, {Status: &c.b}}, true).Owes; got != c.want {
			t.Errorf("%v and %v: %t", c.a.Session, c.b.Session, got)
		}
	}
}
