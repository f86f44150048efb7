// SPDX-License-Identifier: Apache-2.0

//go:build linux

package power

import (
	"flag"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/twinbd/twinbd/tests/harness"
)

var (
	cutsFlag = flag.Int("power.cuts", 4, "how often power is cut, at least")
	timeFlag = flag.Duration("power.time", 0, "how long power is cut instead")
	onlyFlag = flag.String("power.only", "", "the only kind of cut: secondary, primary, both, target, source, chain or promise")
	seedFlag = flag.Uint64("power.seed", 0, "what decides the cuts; 0: another each time")
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// need skips the test where nothing can be mounted.
func need(t testing.TB, programs ...string) {
	t.Helper()
	harness.NeedRoot(t)
	harness.Need(t, append(programs, "nbdfuse", "losetup", "mount", "umount")...)
	for _, path := range []string{"/dev/fuse", "/dev/loop-control"} {
		if _, err := os.Stat(path); err != nil {
			t.Skipf("%s is not there: this kernel, or this container, cannot mount an export", path)
		}
	}
}

func newSeed(t testing.TB) uint64 {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d: repeat with -args -power.seed %d", seed, seed)
	return seed
}
