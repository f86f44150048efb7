// SPDX-License-Identifier: Apache-2.0

package node

import "testing"

func TestTaskFlags(t *testing.T) {
	for text, want := range map[string]uint64{
		"17 (twinbd) S 1 17 17 0 -1 1077936192 0 0": 1077936192,
		"17 (a) b (c) S 1 17 17 0 -1 524288 0 0":    flagFlusher,
	} {
		if got, err := taskFlags([]byte(text)); err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "17 (twinbd) S 1", "17 (twinbd) S 1 17 17 0 -1 x 0"} {
		if got, err := taskFlags([]byte(text)); err == nil {
			t.Errorf("%q: %d", text, got)
		}
	}
	if total, _, err := flushers(); err != nil || total == 0 {
		t.Errorf("%d threads: %v", total, err)
	}
}
