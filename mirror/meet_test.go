// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"strings"
	"testing"
)

// TestAcquaint: a peer that does not belong here is refused in one line that
// says what is wrong, and one that belongs is not.
func TestAcquaint(t *testing.T) {
	s := newScript(t)
	e := s.a.engine
	good := s.b.engine.hello()
	if err := e.acquaint(good); err != nil {
		t.Fatalf("the peer itself is refused: %v", err)
	}
	for _, c := range []struct {
		name   string
		change func(*Hello)
		want   string
	}{
		{"too new a protocol", func(h *Hello) { h.Version, h.MinVersion = ProtocolVersion+2, ProtocolVersion+1 }, "upgrade the older"},
		{"too old a protocol", func(h *Hello) { h.Version, h.MinVersion = ProtocolMinVersion-1, 0 }, "upgrade the older"},
		{"another cluster", func(h *Hello) { h.Cluster = "other" }, `cluster "other"`},
		{"another volume", func(h *Hello) { h.Volume = "w" }, `volume "w"`},
		{"our own name", func(h *Hello) { h.Node = "alpha" }, "also says that it is node"},
		{"a stranger", func(h *Hello) { h.Node = "gamma" }, `node "gamma"`},
		{"one that expects another", func(h *Hello) { h.Peer = "gamma" }, `expects "gamma"`},
		{"another size", func(h *Hello) { h.Size++ }, "make the size in the configuration the same"},
	} {
		h := good
		c.change(&h)
		err := e.acquaint(h)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want one line with %q", c.name, err, c.want)
		}
	}
	newer := good
	newer.Version, newer.Features = ProtocolVersion+1, append(newer.Features, "later")
	if err := e.acquaint(newer); err != nil {
		t.Errorf("a peer that is newer and speaks our version is refused: %v", err)
	}
}
