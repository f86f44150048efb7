// SPDX-License-Identifier: Apache-2.0

package blocktest

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/twinbd/twinbd/internal/block"
)

// FirstDifference returns the offset of the first byte in which two disks
// differ, or -1. Disks of different sizes are an error.
func FirstDifference(a, b block.Disk) (int64, error) {
	if a.Size() != b.Size() {
		return 0, fmt.Errorf("compare disks: one has %d bytes, the other %d", a.Size(), b.Size())
	}
	const step = 1 << 20
	pa, pb := make([]byte, step), make([]byte, step)
	for offset := int64(0); offset < a.Size(); offset += step {
		n := min(step, a.Size()-offset)
		if err := a.ReadAt(pa[:n], offset); err != nil {
			return 0, fmt.Errorf("compare disks: %w", err)
		}
		if err := b.ReadAt(pb[:n], offset); err != nil {
			return 0, fmt.Errorf("compare disks: %w", err)
		}
		if !bytes.Equal(pa[:n], pb[:n]) {
			return offset + firstDifference(pa[:n], pb[:n]), nil
		}
	}
	return -1, nil
}

func firstDifference(a, b []byte) int64 {
	for i := range a {
		if a[i] != b[i] {
			return int64(i)
		}
	}
	return -1
}

// RequireEqual ends the test when two disks differ, and says where.
func RequireEqual(t testing.TB, a, b block.Disk) {
	t.Helper()
	at, err := FirstDifference(a, b)
	if err != nil {
		t.Fatal(err)
	}
	if at >= 0 {
		t.Fatalf("disks differ first at byte %d (block %d)", at, at/block.Size)
	}
}
