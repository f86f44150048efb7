// SPDX-License-Identifier: Apache-2.0

package bitmap

import (
	"fmt"
	"math/bits"

	"github.com/twinbd/twinbd/internal/block"
)

// PageBlocks is the number of blocks whose bits are in one metadata page: 127
// MiB of the volume. It is a multiple of 64, so that a page is whole words in
// memory, and of 256, so that a region of 1 MiB never straddles two pages.
const PageBlocks = (PageSize - pageHeader) * 8

const pageWords = PageBlocks / 64

// Bits is a set of blocks of block.Size bytes: the blocks of a volume that may
// differ between the nodes. Numbers of blocks count from zero; a range outside
// the volume is a bug of the caller and panics. No method allocates. A Bits
// belongs to one thread.
type Bits struct {
	size    int64 // bytes
	blocks  int64
	count   int64    // set bits
	words   []uint64 // block i is bit i%64 of word i/64; whole pages
	pages   []pageState
	unsaved int    // pages with unsaved set
	saves   uint64 // the sequence of the page that was encoded last
}

// pageState is what is known of a page without looking at its bits.
type pageState struct {
	set     uint16 // bits set, at most PageBlocks
	unsaved bool   // differs from what was last encoded or decoded
}

// Run is a range of blocks.
type Run struct{ First, Count int64 }

// NewBits returns the empty set for a volume of size bytes, which need not be
// a multiple of block.Size: the last block may be short. All pages count as
// unsaved until they are encoded or decoded. It takes size/32768 bytes.
func NewBits(size int64) *Bits {
	if size <= 0 || size > MaxSize {
		panic(fmt.Sprintf("bitmap: bits for %d bytes, must be 1 to %d", size, int64(MaxSize)))
	}
	pages := pagesFor(size)
	b := &Bits{
		size:    size,
		blocks:  blocksFor(size),
		words:   make([]uint64, pages*pageWords),
		pages:   make([]pageState, pages),
		unsaved: pages,
	}
	for i := range b.pages {
		b.pages[i].unsaved = true
	}
	return b
}

// Size is the size of the volume in bytes, Blocks its number of blocks, Count
// the number of blocks in the set.
func (b *Bits) Size() int64   { return b.size }
func (b *Bits) Blocks() int64 { return b.blocks }
func (b *Bits) Count() int64  { return b.count }

// Set puts a range of blocks into the set and returns how many were new.
func (b *Bits) Set(first, count int64) (added int64) {
	b.check(first, count)
	for end := first + count; first < end; {
		page := PageOf(first)
		stop := min(end, pageStart(page+1))
		n := setRange(b.words, first, stop)
		if n > 0 {
			b.pages[page].set += uint16(n)
			b.Unsave(page)
			added += n
		}
		first = stop
	}
	b.count += added
	return added
}

// Clear takes a range of blocks out of the set and returns how many were in.
func (b *Bits) Clear(first, count int64) (removed int64) {
	b.check(first, count)
	for end := first + count; first < end; {
		page := PageOf(first)
		stop := min(end, pageStart(page+1))
		if b.pages[page].set > 0 {
			n := clearRange(b.words, first, stop)
			if n > 0 {
				b.pages[page].set -= uint16(n)
				b.Unsave(page)
				removed += n
			}
		}
		first = stop
	}
	b.count -= removed
	return removed
}

// SetBytes puts every block that a range of bytes touches into the set: it
// rounds outwards.
func (b *Bits) SetBytes(offset, length int64) (added int64) {
	b.checkBytes(offset, length)
	if length == 0 {
		return 0
	}
	first := offset / block.Size
	return b.Set(first, blocksFor(offset+length)-first)
}

// ClearBytes takes every block that a range of bytes covers wholly out of the
// set: it rounds inwards. A range that ends with the volume covers the last
// block, be it short.
func (b *Bits) ClearBytes(offset, length int64) (removed int64) {
	b.checkBytes(offset, length)
	first := blocksFor(offset)
	end := (offset + length) / block.Size
	if offset+length == b.size {
		end = b.blocks
	}
	if first >= end {
		return 0
	}
	return b.Clear(first, end-first)
}

// Union puts ranges that came from elsewhere into the set. When one of them is
// not within the volume it returns an error and has changed nothing.
func (b *Bits) Union(runs []Run) (added int64, err error) {
	for _, r := range runs {
		if !b.within(r.First, r.Count) {
			return 0, fmt.Errorf("blocks %d+%d are not within the volume's %d", r.First, r.Count, b.blocks)
		}
	}
	for _, r := range runs {
		added += b.Set(r.First, r.Count)
	}
	return added, nil
}

// Any reports whether a block of the range is in the set.
func (b *Bits) Any(first, count int64) bool {
	b.check(first, count)
	return b.nextSet(first, first+count) < first+count
}

// Full reports whether all blocks of the range are in the set.
func (b *Bits) Full(first, count int64) bool {
	b.check(first, count)
	return b.nextClear(first, first+count) == first+count
}

// Next returns the first run of blocks in the set at or after from, cut to
// most blocks; ok is false when there is none. It steps over empty and full
// pages without looking at their bits.
func (b *Bits) Next(from, most int64) (first, count int64, ok bool) {
	b.check(from, 0)
	if most <= 0 {
		panic(fmt.Sprintf("bitmap: next run of at most %d blocks", most))
	}
	if b.count == 0 {
		return 0, 0, false
	}
	first = b.nextSet(from, b.blocks)
	if first == b.blocks {
		return 0, 0, false
	}
	end := b.blocks
	if most < end-first {
		end = first + most
	}
	return first, b.nextClear(first, end) - first, true
}

// nextSet returns the first block in the set in [from, end), or end.
func (b *Bits) nextSet(from, end int64) int64 {
	for from < end {
		page := PageOf(from)
		stop := min(end, pageStart(page+1))
		if b.pages[page].set > 0 {
			if i := firstBit(b.words, from, stop, 0); i < stop {
				return i
			}
		}
		from = stop
	}
	return end
}

// nextClear returns the first block not in the set in [from, end), or end.
func (b *Bits) nextClear(from, end int64) int64 {
	for from < end {
		page := PageOf(from)
		stop := min(end, pageStart(page+1))
		if int64(b.pages[page].set) < b.blocksIn(page) {
			if i := firstBit(b.words, from, stop, ^uint64(0)); i < stop {
				return i
			}
		}
		from = stop
	}
	return end
}

func (b *Bits) within(first, count int64) bool {
	return first >= 0 && count >= 0 && count <= b.blocks && first <= b.blocks-count
}

func (b *Bits) check(first, count int64) {
	if !b.within(first, count) {
		panic(fmt.Sprintf("bitmap: blocks %d+%d of %d", first, count, b.blocks))
	}
}

func (b *Bits) checkBytes(offset, length int64) {
	if offset < 0 || length < 0 || length > b.size || offset > b.size-length {
		panic(fmt.Sprintf("bitmap: bytes %d+%d of %d", offset, length, b.size))
	}
}

// mask has the bits [i, min(end, end of i's word)) of i's word, and next is
// where the following word's begin.
func mask(i, end int64) (m uint64, next int64) {
	next = min(end, i|63+1)
	return ^uint64(0) >> (64 - uint(next-i)) << uint(i&63), next
}

func setRange(words []uint64, i, end int64) (changed int64) {
	for i < end {
		m, next := mask(i, end)
		w := &words[i>>6]
		changed += int64(bits.OnesCount64(m &^ *w))
		*w |= m
		i = next
	}
	return changed
}

func clearRange(words []uint64, i, end int64) (changed int64) {
	for i < end {
		m, next := mask(i, end)
		w := &words[i>>6]
		changed += int64(bits.OnesCount64(m & *w))
		*w &^= m
		i = next
	}
	return changed
}

// firstBit returns the first of [i, end) whose bit is set in the words xored
// with flip, or end.
func firstBit(words []uint64, i, end int64, flip uint64) int64 {
	for i < end {
		m, next := mask(i, end)
		if w := (words[i>>6] ^ flip) & m; w != 0 {
			return i&^63 + int64(bits.TrailingZeros64(w))
		}
		i = next
	}
	return end
}
