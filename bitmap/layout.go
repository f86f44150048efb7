// SPDX-License-Identifier: Apache-2.0

package bitmap

import (
	"fmt"

	"github.com/twinbd/twinbd/internal/block"
)

// The limits and the defaults of a volume's geometry.
const (
	MaxSize = 64 << 40 // bytes of a volume: 64 TiB, whose bits take 2 GiB

	MinRegionSize     = 64 << 10 // bytes; a region is a power of two
	MaxRegionSize     = 64 << 20
	DefaultRegionSize = 1 << 20

	MaxIntentLimit     = 1<<16 - 1 // what 16 bits can number, beside "none"
	DefaultIntentLimit = 4096
)

// slotSpacing keeps the two copies of a slot apart, so that one bad spot of a
// disk or one erase block that is lost does not take both.
const slotSpacing = 64 << 10

// Layout says where everything is in a metadata area. The headers are where
// they are whatever the geometry, since they must be found to know it; the
// pages come last, so that a volume can grow.
type Layout struct {
	size, regionSize int64
	intentLimit      int
}

// NewLayout returns the layout for a volume of size bytes. The errors name
// what is out of bounds.
func NewLayout(size, regionSize int64, intentLimit int) (Layout, error) {
	switch {
	case size <= 0 || size > MaxSize:
		return Layout{}, fmt.Errorf("volume size is %d bytes, must be 1 to %d", size, int64(MaxSize))
	case regionSize < MinRegionSize || regionSize > MaxRegionSize || regionSize&(regionSize-1) != 0:
		return Layout{}, fmt.Errorf("region size is %d bytes, must be a power of two from %d to %d", regionSize, MinRegionSize, MaxRegionSize)
	case intentLimit < 1 || intentLimit > MaxIntentLimit:
		return Layout{}, fmt.Errorf("limit of intents is %d, must be 1 to %d", intentLimit, MaxIntentLimit)
	}
	return Layout{size, regionSize, intentLimit}, nil
}

// Size is the size of the volume and RegionSize that of a region, in bytes;
// IntentLimit is how many intents may be set.
func (l Layout) Size() int64       { return l.size }
func (l Layout) RegionSize() int64 { return l.regionSize }
func (l Layout) IntentLimit() int  { return l.intentLimit }

// Regions is the number of regions; the last may be short.
func (l Layout) Regions() int64 { return (l.size + l.regionSize - 1) / l.regionSize }

// RegionsOf returns the regions that a range of bytes touches, first to last
// inclusive. The range is within the volume and not empty.
func (l Layout) RegionsOf(offset, length int64) (first, last uint32) {
	return uint32(offset / l.regionSize), uint32((offset + length - 1) / l.regionSize)
}

// Region is the range of blocks of a region, within the volume.
func (l Layout) Region(region uint32) Run {
	per := l.regionSize / block.Size
	first := int64(region) * per
	return Run{First: first, Count: min(per, blocksFor(l.size)-first)}
}

// HeaderOffset is where the header with a sequence is written: HeaderSize
// bytes, alternately in two places.
func HeaderOffset(sequence uint64) int64 { return int64(sequence%2) * slotSpacing }

// IntentsOffset is where the intents with a sequence are written: up to
// IntentsSize bytes, alternately in two places.
func (l Layout) IntentsOffset(sequence uint64) int64 {
	return 2*slotSpacing + int64(sequence%2)*l.intentsSpace()
}

// IntentsSize is the length in bytes of a slot for all intents that may be set.
func (l Layout) IntentsSize() int { return intentsLen(l.intentLimit) }

// PageOffset is where a page of bits is written: PageSize bytes.
func (l Layout) PageOffset(page int) int64 {
	return 2*slotSpacing + 2*l.intentsSpace() + int64(page)*PageSize
}

// Pages is the number of pages of bits.
func (l Layout) Pages() int { return pagesFor(l.size) }

// Bytes is the length of the whole area: about size/32512 and 256 KiB.
func (l Layout) Bytes() int64 { return l.PageOffset(l.Pages()) }

func (l Layout) intentsSpace() int64 { return roundUp(int64(l.IntentsSize()), slotSpacing) }

func roundUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }
