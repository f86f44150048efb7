// SPDX-License-Identifier: Apache-2.0

package config

// nearest returns the word that was probably meant, or "" when none is near:
// at most a third of its letters may differ.
func nearest(word string, words []string) string {
	best, bestDistance := "", len(word)
	for _, w := range words {
		if d := distance(word, w); d < bestDistance && d <= max(1, len(w)/3) {
			best, bestDistance = w, d
		}
	}
	return best
}

// distance is how many letters must be put in, left out or changed to make b of
// a (Levenshtein). Long words are never near, which bounds the work.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return max(len(a), len(b))
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
