// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"encoding/json"
	"testing"

	"github.com/twinbd/twinbd/tests/harness"
)

// The nodes are upgraded one at a time, to a release with the next version of their
// protocol, as the guide says: secondary first. Each is the primary of a pair of two
// versions once, and catches up once with what was written without it.
func TestUpgradeOneAtATime(t *testing.T) {
	lab := harness.NewPair(t, harness.Options{})
	next := harness.NextBinary(t)
	if now, then := protocolOf(t, harness.Binary(t)), protocolOf(t, next); then != now+1 {
		t.Fatalf("protocol %d, and the next release has %d", now, then)
	}
	volume := lab.Volumes()[0]
	alone, paired := pattern(1, 64<<10), pattern(2, 64<<10)
	for i, n := range []*harness.Node{lab.Beta, lab.Alpha} {
		serves, at := lab.Other(n), int64(i)<<20
		n.Stop(t)
		put(t, serves.Dial(t, volume), at, alone)
		n.Upgrade(next)
		n.Start(t)
		lab.WaitPaired(t, serves)
		put(t, serves.Dial(t, volume), at+512<<10, paired)
		serves.MustRun(t, "switch", harness.Service)
		lab.WaitPaired(t, n)
		client := n.Dial(t, volume)
		holds(t, client, at, alone)
		holds(t, client, at+512<<10, paired)
	}
}

// protocolOf is the version of the nodes' protocol that a program speaks.
func protocolOf(t *testing.T, program string) (version int) {
	t.Helper()
	var build struct{ Protocol int }
	if err := json.Unmarshal([]byte(harness.MustRun(t, program, "version", "--json")), &build); err != nil {
		t.Fatal(err)
	}
	return build.Protocol
}
