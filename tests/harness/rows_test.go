// SPDX-License-Identifier: Apache-2.0

//go:build linux

package harness

import "testing"

func TestMissingRows(t *testing.T) {
	for _, test := range []struct {
		table string
		rows  []int
		want  int
	}{
		{"", nil, 0},
		{"1\n2\n3\n", []int{1, 3}, 0},
		{"1\n2\n3", []int{3}, 0},
		{"1\n23\n", []int{1, 2, 3}, 2},
		{"", []int{1}, 1},
	} {
		if got := missingRows(test.table, test.rows); got != test.want {
			t.Errorf("%q lacks %d of %d, not %d", test.table, got, test.rows, test.want)
		}
	}
}
