// SPDX-License-Identifier: Apache-2.0

package bitmap

import (
	"cmp"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/twinbd/twinbd/internal/block"
)

// layouts draws a layout of a volume of up to 1 TiB.
var layouts = rapid.Custom(func(t *rapid.T) Layout {
	l, err := NewLayout(
		rapid.Int64Range(1, 1<<40).Draw(t, "size"),
		MinRegionSize<<rapid.IntRange(0, 10).Draw(t, "region"),
		rapid.IntRange(1, MaxIntentLimit).Draw(t, "limit"),
	)
	if err != nil {
		t.Fatal(err)
	}
	return l
})

// TestLayoutKeepsApart: nothing overlaps, everything is aligned and within the
// area, and the copies of a slot share no 64 KiB.
func TestLayoutKeepsApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := layouts.Draw(t, "layout")
		pages := Run{l.PageOffset(0), l.PageOffset(l.Pages()) - l.PageOffset(0)}
		parts := []Run{pages}
		for sequence := range uint64(2) {
			parts = append(parts,
				Run{HeaderOffset(sequence), HeaderSize},
				Run{l.IntentsOffset(sequence), int64(l.IntentsSize())})
		}
		slices.SortFunc(parts, func(a, b Run) int { return cmp.Compare(a.First, b.First) })
		end := int64(0)
		for _, p := range parts {
			if p.First < end || p.First%PageSize != 0 || p.Count%PageSize != 0 {
				t.Fatalf("parts %v overlap or are not aligned", parts)
			}
			end = p.First + p.Count
		}
		if end != l.Bytes() || pages.Count != int64(l.Pages())*PageSize {
			t.Fatalf("parts %v end at %d, the area at %d", parts, end, l.Bytes())
		}
		if HeaderOffset(0)/slotSpacing == HeaderOffset(1)/slotSpacing {
			t.Fatal("the headers share 64 KiB")
		}
		if (l.IntentsOffset(0)+int64(l.IntentsSize())-1)/slotSpacing >= l.IntentsOffset(1)/slotSpacing {
			t.Fatal("the intents share 64 KiB")
		}
	})
}

// TestRegionsCoverTheVolume: each block is in exactly one region, the one that
// RegionsOf gives.
func TestRegionsCoverTheVolume(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := layouts.Draw(t, "layout")
		offset := rapid.Int64Range(0, l.Size()-1).Draw(t, "offset")
		length := rapid.Int64Range(1, min(l.Size()-offset, 64<<20)).Draw(t, "length")
		first, last := l.RegionsOf(offset, length)
		if int64(last) >= l.Regions() {
			t.Fatalf("bytes %d+%d are in region %d of %d", offset, length, last, l.Regions())
		}
		from, to := l.Region(first), l.Region(last)
		if at := offset / block.Size; at < from.First || at >= from.First+from.Count {
			t.Fatalf("block %d is not in region %d: %v", at, first, from)
		}
		if at := (offset + length - 1) / block.Size; at < to.First || at >= to.First+to.Count {
			t.Fatalf("block %d is not in region %d: %v", at, last, to)
		}
		end := l.Region(uint32(l.Regions() - 1))
		if end.Count < 1 || end.First+end.Count != blocksFor(l.Size()) {
			t.Fatalf("the last region is %v of %d blocks", end, blocksFor(l.Size()))
		}
	})
}

func TestNewLayoutRefuses(t *testing.T) {
	for _, tt := range []struct {
		size, region int64
		limit        int
		says         string
	}{
		{0, 1 << 20, 1, "volume size is 0 bytes, must be 1 to 70368744177664"},
		{-1, 1 << 20, 1, "volume size is -1 bytes, must be 1 to 70368744177664"},
		{MaxSize + 1, 1 << 20, 1, "volume size is 70368744177665 bytes, must be 1 to 70368744177664"},
		{1, 0, 1, "region size is 0 bytes, must be a power of two from 65536 to 67108864"},
		{1, 32 << 10, 1, "region size is 32768 bytes, must be a power of two from 65536 to 67108864"},
		{1, 3 << 20, 1, "region size is 3145728 bytes, must be a power of two from 65536 to 67108864"},
		{1, 128 << 20, 1, "region size is 134217728 bytes, must be a power of two from 65536 to 67108864"},
		{1, 1 << 20, 0, "limit of intents is 0, must be 1 to 65535"},
		{1, 1 << 20, 65536, "limit of intents is 65536, must be 1 to 65535"},
	} {
		if _, err := NewLayout(tt.size, tt.region, tt.limit); err == nil || err.Error() != tt.says {
			t.Errorf("NewLayout(%d, %d, %d): %v, want %q", tt.size, tt.region, tt.limit, err, tt.says)
		}
	}
	l, err := NewLayout(MaxSize, MinRegionSize, MaxIntentLimit)
	if err != nil || l.Regions() != 1<<30 || l.Size() != MaxSize || l.RegionSize() != MinRegionSize || l.IntentLimit() != MaxIntentLimit {
		t.Errorf("the largest layout is %+v with %d regions, %v", l, l.Regions(), err)
	}
}
