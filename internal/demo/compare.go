// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/twinbd/twinbd/internal/block"
)

// compareDisks compares the two nodes' disks byte by byte, below the nodes and
// without asking them. The load must have ended: an acknowledged write is on
// both, one under way may be on one.
func (d *demo) compareDisks() error {
	a, b := d.pair.primary.disk(), d.pair.secondary.disk()
	if err := compareFiles(a, b, d.layout.size); err != nil {
		return fmt.Errorf("compare disks: %w", err)
	}
	d.story.say("compared both disks byte by byte: %d bytes, equal", d.layout.size)
	return nil
}

// compareFiles returns an error that says in how many blocks the first size
// bytes of two files differ, and where first.
func compareFiles(a, b string, size int64) error {
	left, err := os.Open(a)
	if err != nil {
		return err
	}
	defer left.Close()
	right, err := os.Open(b)
	if err != nil {
		return err
	}
	defer right.Close()
	different, first := 0, int64(0)
	x, y := make([]byte, pieceSize), make([]byte, pieceSize)
	for offset := int64(0); offset < size; offset += pieceSize {
		n := min(pieceSize, size-offset)
		if _, err := io.ReadFull(left, x[:n]); err != nil {
			return fmt.Errorf("read %s: %w", a, err)
		}
		if _, err := io.ReadFull(right, y[:n]); err != nil {
			return fmt.Errorf("read %s: %w", b, err)
		}
		for at := int64(0); at < n; at += block.Size {
			end := min(at+block.Size, n)
			if bytes.Equal(x[at:end], y[at:end]) {
				continue
			}
			if different == 0 {
				first = offset + at
			}
			different++
		}
	}
	if different > 0 {
		return fmt.Errorf("%d blocks of %s and %s differ, the first at byte %d", different, a, b, first)
	}
	return nil
}
