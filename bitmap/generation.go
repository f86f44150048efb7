// SPDX-License-Identifier: Apache-2.0

package bitmap

import (
	"encoding/hex"
	"fmt"
	"io"
)

// Generation is the random name of one history of a volume's content. The zero
// Generation names none.
type Generation [16]byte

// NewGeneration draws a generation from r, a source of random bytes.
func NewGeneration(r io.Reader) (Generation, error) {
	var g Generation
	if _, err := io.ReadFull(r, g[:]); err != nil {
		return Generation{}, fmt.Errorf("draw generation: %w", err)
	}
	if g.IsZero() {
		return Generation{}, fmt.Errorf("draw generation: the source of random bytes gives zeroes")
	}
	return g, nil
}

// IsZero reports whether g names no generation.
func (g Generation) IsZero() bool { return g == Generation{} }

// String is short, for people: the first 8 of 32 hexadecimal digits, or "none".
func (g Generation) String() string {
	if g.IsZero() {
		return "none"
	}
	return hex.EncodeToString(g[:4])
}

// Hex is the whole name, 32 hexadecimal digits.
func (g Generation) Hex() string { return hex.EncodeToString(g[:]) }
