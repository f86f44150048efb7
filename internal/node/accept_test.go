// SPDX-License-Identifier: Apache-2.0

package node

import (
	"strings"
	"testing"

	"github.com/twinbd/twinbd/mirror"
)

// A node of another version is let in as long as both speak one in common.
func TestAcceptVersions(t *testing.T) {
	l := newLab(t, "1MiB")
	peers := l.nodes["alpha"].node.peers
	const now, before = mirror.ProtocolVersion, mirror.ProtocolMinVersion
	for _, test := range []struct {
		newest, oldest int
		refused        bool
	}{
		{now, before, false},
		{now + 1, now, false},
		{before, before - 1, false},
		{now + 2, now + 1, true},
		{before - 1, before - 2, true},
	} {
		err := peers.check(preamble{Protocol: test.newest, Oldest: test.oldest, Cluster: "lab", From: "beta", Kind: kindBeat})
		if (err != nil) != test.refused || err != nil && !strings.Contains(err.Error(), "upgrade the older") {
			t.Errorf("a node that speaks %d to %d: %v", test.oldest, test.newest, err)
		}
	}
}
