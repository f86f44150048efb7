// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"strconv"
	"strings"
)

// MissingRows is how many of the rows are not in a table that was read, one number on
// each line.
func MissingRows(table string, rows []int) (missing int) {
	there := make(map[string]bool)
	for id := range strings.Lines(table) {
		there[strings.TrimSpace(id)] = true
	}
	for _, id := range rows {
		if !there[strconv.Itoa(id)] {
			missing++
		}
	}
	return missing
}
