// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netns

import (
	"strings"
	"testing"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/tests/harness"
)

// While both nodes reach the witness, the holder stays, whichever direction
// between them is cut (rule 16).
func TestRule16HolderStays(t *testing.T) {
	for name, break_ := range map[string]func(t *testing.T, l *lan){
		"nothing arrives from the primary": func(t *testing.T, l *lan) { l.cut(t, "alpha", "beta") },
		"nothing arrives at the primary":   func(t *testing.T, l *lan) { l.cut(t, "beta", "alpha") },
		"neither way":                      func(t *testing.T, l *lan) { l.part(t, "alpha", "beta") },
		"only what the nodes say":          func(t *testing.T, l *lan) { l.mute(t, "alpha", "beta") },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, options{})
			k := c.newClient(t, 1)
			fault := k.now()
			break_(t, c.lan)
			c.alpha.waitState(t, control.Alone)
			k.waitServed(t, c.alpha, k.now())
			t.Logf("without an acknowledged write for %v", k.gap(fault))
			harness.Elapse(3 * time.Second) // longer than any lease: beta would have taken over by now
			k.waitServed(t, c.alpha, k.now())
			k.silent(t, c.beta, 0)
			c.lan.heal(t)
			c.waitPair(t, c.alpha)
		})
	}
}

// A node that reaches the witness in one direction only, or not at all, reaches it
// through its peer: nothing changes for clients (rule 19).
func TestRule19Relay(t *testing.T) {
	for name, break_ := range map[string]func(t *testing.T, l *lan){
		"the witness does not hear the primary": func(t *testing.T, l *lan) { l.cut(t, "alpha", "witness") },
		"the primary does not hear the witness": func(t *testing.T, l *lan) { l.cut(t, "witness", "alpha") },
		"neither hears the other":               func(t *testing.T, l *lan) { l.part(t, "witness", "alpha") },
		"nor does the direct link carry": func(t *testing.T, l *lan) {
			l.cable(t, "alpha1", false)
			l.part(t, "witness", "alpha")
		},
		"the secondary and the witness": func(t *testing.T, l *lan) { l.part(t, "witness", "beta") },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, options{})
			k := c.newClient(t, 1)
			fault := k.now()
			break_(t, c.lan)
			harness.Elapse(4 * time.Second)
			c.waitPair(t, c.alpha)
			k.waitServed(t, c.alpha, k.now())
			k.within(t, fault, 2*time.Second)
			c.alpha.mustAct(t, "switch") // which alpha itself has to write into the record
			k.waitServed(t, c.beta, k.now())
			c.waitPair(t, c.beta)
			if said := c.alpha.text() + c.beta.text(); strings.Contains(said, "promise") {
				t.Error("somebody has promised not to serve, as if the witness were lost")
			}
			c.lan.heal(t)
			c.waitPair(t, c.beta)
		})
	}
}

// within holds that the client never waited longer for an acknowledged write. The
// limit is far above what is expected, and below any timeout.
func (k *client) within(t testing.TB, since, limit time.Duration) {
	t.Helper()
	gap := k.gap(since)
	t.Logf("without an acknowledged write for %v", gap)
	if gap > limit {
		t.Errorf("the client got no write acknowledged for %v, more than %v", gap, limit)
	}
}

// The direct link is the only path between the nodes that is left: nobody notices.
func TestSecondLinkOnly(t *testing.T) {
	c := newCluster(t, options{})
	k := c.newClient(t, 1)
	fault := k.now()
	c.lan.cuts[cut{"alpha0", "beta0", ""}], c.lan.cuts[cut{"beta0", "alpha0", ""}] = true, true
	c.lan.apply(t)
	harness.Elapse(3 * time.Second)
	k.waitServed(t, c.alpha, k.now())
	k.within(t, fault, time.Second)
	c.waitPair(t, c.alpha)
}

// The direct link is pulled: replication goes on over the other network.
func TestDirectLinkPulled(t *testing.T) {
	c := newCluster(t, options{})
	k := c.newClient(t, 1)
	fault := k.now()
	c.lan.cable(t, "alpha1", false)
	harness.Elapse(3 * time.Second)
	c.waitPair(t, c.alpha)
	k.waitServed(t, c.alpha, k.now())
	k.within(t, fault, 2*time.Second)
	c.lan.cable(t, "alpha1", true)
	c.lan.cable(t, "alpha0", false) // and now the direct one is the only one: the service is to be where clients are
	k.waitServed(t, c.beta, k.now())
	c.lan.cable(t, "alpha0", true)
	c.waitPair(t, c.beta)
}
