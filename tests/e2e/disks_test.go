// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"testing"

	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/tests/harness"
)

// A preallocated file keeps its space whatever is trimmed or zeroed, so that no
// later write finds the disk full; a thin one gives it back. Both read as zeroes.
func TestSpace(t *testing.T) {
	const part = 8 << 20
	for name, thin := range map[string]bool{"preallocated": false, "thin": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab := harness.NewPair(t, harness.Options{Thin: thin})
			space := func(when string, least, most int64) {
				t.Helper()
				for _, n := range lab.Nodes() {
					if s := harness.Space(t, n.Disk(data)); s < least || s > most {
						t.Errorf("%s: the disk of %s takes %d bytes, want %d to %d", when, n.Name, s, least, most)
					}
				}
			}
			const slack = 1 << 20 // what a file system needs for itself
			full := lab.Size()
			least := full
			if thin {
				least = 0
			}
			if thin {
				space("new", 0, slack)
			} else {
				space("new", full, full+slack)
			}
			c := lab.Alpha.Dial(t, data)
			put(t, c, 0, pattern(9, 3*part))
			space("written", max(least, 3*part), full+slack)
			if err := c.Trim(0, part, 0); err != nil {
				t.Fatal(err)
			}
			if err := c.WriteZeroes(part, part, 0); err != nil {
				t.Fatal(err)
			}
			if err := c.WriteZeroes(2*part, part, block.NoHole); err != nil {
				t.Fatal(err)
			}
			if err := c.Flush(); err != nil {
				t.Fatal(err)
			}
			holds(t, c, 0, make([]byte, 3*part))
			if thin {
				space("trimmed", part, part+slack) // NoHole keeps the third part
			} else {
				space("trimmed", full, full+slack)
			}
			lab.SameDisks(t)
		})
	}
}

// A resync gives a thin disk no space that its source does not take, and takes
// none away from a preallocated one.
func TestResyncKeepsHoles(t *testing.T) {
	lab := harness.NewPair(t, harness.Options{Thin: true})
	put(t, lab.Alpha.Dial(t, data), 1<<20, pattern(1, 1<<20))
	lab.Alpha.MustRun(t, "resync", data, "--full")
	lab.WaitPaired(t, lab.Alpha)
	for _, n := range lab.Nodes() {
		if s := harness.Space(t, n.Disk(data)); s > 3<<20 {
			t.Errorf("after a full resync the disk of %s takes %d bytes", n.Name, s)
		}
	}
}
