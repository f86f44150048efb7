// SPDX-License-Identifier: Apache-2.0

package bitmap

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/twinbd/twinbd/internal/block"
)

// reseal makes the checksum of a page right again.
func reseal(p []byte) { binary.BigEndian.PutUint32(p[4:], pageSum(p)) }

func TestPageRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(1, 3*PageBlocks*block.Size).Draw(t, "size")
		salt := rapid.Uint64().Draw(t, "salt")
		from, to := NewBits(size), NewBits(size)
		for range rapid.IntRange(0, 20).Draw(t, "runs") {
			first := rapid.Int64Range(0, from.Blocks()-1).Draw(t, "first")
			from.Set(first, rapid.Int64Range(0, from.Blocks()-first).Draw(t, "count"))
		}
		to.Set(0, rapid.Int64Range(0, to.Blocks()).Draw(t, "before"))
		for page, buf := 0, make([]byte, PageSize); page < from.Pages(); page++ {
			from.EncodePage(page, salt, buf)
			if err := to.DecodePage(page, salt, buf); err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Equal(runsOf(from), runsOf(to)) || from.Count() != to.Count() {
			t.Fatalf("encoded %v, decoded %v", runsOf(from), runsOf(to))
		}
		if from.Unsaved() != 0 || to.Unsaved() != 0 {
			t.Fatalf("%d and %d pages are unsaved", from.Unsaved(), to.Unsaved())
		}
	})
}

func TestBadPageIsAllDirty(t *testing.T) {
	const salt = 42
	tests := []struct {
		name   string
		damage func(p []byte)
		says   string
	}{
		{"zeroes", func(p []byte) { clear(p) }, "magic"},
		{"other magic", func(p []byte) { p[0]++; reseal(p) }, "magic"},
		{"bit flipped in the bits", func(p []byte) { p[100] ^= 1 }, "checksum"},
		{"bit flipped in the last byte", func(p []byte) { p[4095] ^= 0x80 }, "checksum"},
		{"bit flipped in the checksum", func(p []byte) { p[4] ^= 1 }, "checksum"},
		{"newer version", func(p []byte) { p[11] = 2; reseal(p) }, "version is 2"},
		{"other page", func(p []byte) { p[15] = 1; reseal(p) }, "it is page 1"},
		{"other area", func(p []byte) { p[23]++; reseal(p) }, "another metadata area"},
		{"a bit beyond the end", func(p []byte) { p[pageHeader+12] |= 1 << 5; reseal(p) }, "beyond the end"},
		{"the very last bit", func(p []byte) { p[4095] |= 0x80; reseal(p) }, "beyond the end"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			const blocks = 101 // 12 bytes and 5 bits
			b := NewBits(blocks * block.Size)
			b.Set(7, 1)
			p := make([]byte, PageSize)
			b.EncodePage(0, salt, p)
			tt.damage(p)
			err := b.DecodePage(0, salt, p)
			if !errors.Is(err, ErrPage) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error is %v, want one about %q", err, tt.says)
			}
			if b.Count() != blocks || b.Saved(0) {
				t.Errorf("%d of %d blocks are dirty, saved: %v", b.Count(), blocks, b.Saved(0))
			}
		})
	}
}

// TestBadPageIsUnsaved though all its blocks were dirty before: what is stored
// is not what is known.
func TestBadPageIsUnsaved(t *testing.T) {
	b := NewBits(PageBlocks * block.Size)
	b.Set(0, PageBlocks)
	p := make([]byte, PageSize)
	b.EncodePage(0, 1, p)
	if b.DecodePage(0, 2, p) == nil || b.Saved(0) {
		t.Errorf("a bad page is saved: %v", b.Saved(0))
	}
}

// TestPageSequenceGoesOn after loading, so that it tells which page was
// written last.
func TestPageSequenceGoesOn(t *testing.T) {
	const size = 2 * PageBlocks * block.Size
	p, q := make([]byte, PageSize), make([]byte, PageSize)
	before := NewBits(size)
	for range 5 {
		before.EncodePage(1, 1, p)
	}
	after := NewBits(size)
	if err := after.DecodePage(1, 1, p); err != nil {
		t.Fatal(err)
	}
	after.EncodePage(0, 1, q)
	if a, b := binary.BigEndian.Uint64(p[24:]), binary.BigEndian.Uint64(q[24:]); a != 5 || b != 6 {
		t.Errorf("sequences are %d and then %d", a, b)
	}
}

func TestUnsavedPages(t *testing.T) {
	b := NewBits(4 * PageBlocks * block.Size)
	buf := make([]byte, PageSize)
	expect := func(when string, want ...int) {
		t.Helper()
		var got []int
		for page, ok := b.NextUnsaved(0); ok; page, ok = b.NextUnsaved(page + 1) {
			got = append(got, page)
		}
		if !slices.Equal(got, want) || b.Unsaved() != len(want) {
			t.Errorf("%s: pages %v (%d) are unsaved, want %v", when, got, b.Unsaved(), want)
		}
	}
	expect("at first", 0, 1, 2, 3)
	for page := range b.Pages() {
		b.EncodePage(page, 0, buf)
	}
	expect("after encoding all")
	b.Set(2*PageBlocks-1, 2)
	expect("after a run across pages", 1, 2)
	b.EncodePage(1, 0, buf)
	expect("after encoding one", 2)
	b.Set(2*PageBlocks-1, 1)
	expect("after setting what was set", 2)
	b.Clear(0, 100)
	expect("after clearing what was clear", 2)
	b.EncodePage(2, 0, buf)
	b.Clear(2*PageBlocks, 1)
	expect("after clearing", 2)
	b.EncodePage(2, 0, buf)
	b.Unsave(2)
	b.Unsave(2)
	expect("after a write failed", 2)
	if b.Saved(2) || !b.Saved(3) {
		t.Errorf("Saved(2) = %v, Saved(3) = %v", b.Saved(2), b.Saved(3))
	}
}

func TestPageRun(t *testing.T) {
	b := NewBits((PageBlocks + 5) * block.Size)
	if got, want := b.PageRun(0), (Run{0, PageBlocks}); got != want {
		t.Errorf("first page holds %v, want %v", got, want)
	}
	if got, want := b.PageRun(1), (Run{PageBlocks, 5}); got != want {
		t.Errorf("last page holds %v, want %v", got, want)
	}
	if PageOf(PageBlocks-1) != 0 || PageOf(PageBlocks) != 1 {
		t.Errorf("pages of the blocks around the border: %d, %d", PageOf(PageBlocks-1), PageOf(PageBlocks))
	}
}

func BenchmarkEncodePage(b *testing.B) {
	bits := NewBits(tebibyte)
	buf := make([]byte, PageSize)
	b.ReportAllocs()
	for b.Loop() {
		bits.EncodePage(0, 1, buf)
	}
}
