// SPDX-License-Identifier: Apache-2.0

package bitmap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/bits"

	"github.com/twinbd/twinbd/internal/block"
)

// PageSize is the length in bytes of a metadata page. It is written in place
// and in one piece; a page that was torn has a wrong checksum and counts as
// all dirty.
//
//	offset size
//	     0    4  magic "TBDP"
//	     4    4  crc32c of bytes 0 to 3 and 8 to 4095
//	     8    4  version, 1
//	    12    4  index of the page, from 0
//	    16    8  salt of the metadata area
//	    24    8  sequence: counts the page writes of the area; for humans
//	    32 4064  bits: block i of the page is bit i%8 of byte i/8, where bit 0
//	             is the least significant; beyond the last block zero
//
// Numbers are big endian.
const PageSize = 4096

const (
	pageHeader  = 32
	pageMagic   = 0x54424450 // "TBDP"
	pageVersion = 1
)

// ErrPage is wrapped by the errors of DecodePage: the page cannot be trusted.
var ErrPage = errors.New("page is not valid")

// PageOf is the page that holds a block's bit.
func PageOf(block int64) int { return int(block / PageBlocks) }

// PageRun is the range of blocks whose bits a page holds, within the volume.
func (b *Bits) PageRun(page int) Run {
	return Run{First: pageStart(page), Count: b.blocksIn(page)}
}

// Pages is the number of metadata pages.
func (b *Bits) Pages() int { return len(b.pages) }

// NextUnsaved returns the first page at or after from that differs from what
// was last encoded or decoded.
func (b *Bits) NextUnsaved(from int) (page int, ok bool) {
	if b.unsaved == 0 {
		return 0, false
	}
	for page := from; page < len(b.pages); page++ {
		if b.pages[page].unsaved {
			return page, true
		}
	}
	return 0, false
}

// Unsaved is the number of pages that differ from what was last encoded.
func (b *Bits) Unsaved() int { return b.unsaved }

// Saved reports whether a page is as it was last encoded or decoded. That says
// nothing of its durability, which is for the writer to know.
func (b *Bits) Saved(page int) bool { return !b.pages[page].unsaved }

// Unsave takes back that a page was saved: its write failed or was dropped.
func (b *Bits) Unsave(page int) {
	if !b.pages[page].unsaved {
		b.pages[page].unsaved = true
		b.unsaved++
	}
}

// EncodePage puts a page into dst, which has PageSize bytes, and marks it
// saved. The salt is that of the metadata area's header.
func (b *Bits) EncodePage(page int, salt uint64, dst []byte) {
	_ = dst[PageSize-1]
	b.saves++
	binary.BigEndian.PutUint32(dst[0:], pageMagic)
	binary.BigEndian.PutUint32(dst[8:], pageVersion)
	binary.BigEndian.PutUint32(dst[12:], uint32(page))
	binary.BigEndian.PutUint64(dst[16:], salt)
	binary.BigEndian.PutUint64(dst[24:], b.saves)
	for i, w := range b.pageWords(page) {
		binary.LittleEndian.PutUint64(dst[pageHeader+8*i:], w)
	}
	binary.BigEndian.PutUint32(dst[4:], pageSum(dst))
	if b.pages[page].unsaved {
		b.pages[page].unsaved = false
		b.unsaved--
	}
}

// DecodePage replaces the bits of a page by those in src, which has PageSize
// bytes. When src is not that page it makes the page all dirty and unsaved,
// and returns an error that wraps ErrPage and says why.
func (b *Bits) DecodePage(page int, salt uint64, src []byte) error {
	_ = src[PageSize-1]
	if err := b.checkPage(page, salt, src); err != nil {
		b.Set(pageStart(page), b.blocksIn(page))
		b.Unsave(page)
		return err
	}
	set := 0
	words := b.pageWords(page)
	for i := range words {
		words[i] = binary.LittleEndian.Uint64(src[pageHeader+8*i:])
		set += bits.OnesCount64(words[i])
	}
	p := &b.pages[page]
	b.count += int64(set) - int64(p.set)
	p.set = uint16(set)
	if p.unsaved {
		p.unsaved = false
		b.unsaved--
	}
	b.saves = max(b.saves, binary.BigEndian.Uint64(src[24:]))
	return nil
}

// checkPage says why src is not the page. A page of another version is not an
// error of the whole area: all dirty is a safe reading of it.
func (b *Bits) checkPage(page int, salt uint64, src []byte) error {
	magic := binary.BigEndian.Uint32(src)
	version := binary.BigEndian.Uint32(src[8:])
	index := binary.BigEndian.Uint32(src[12:])
	switch {
	case magic != pageMagic:
		return fmt.Errorf("page %d: %w: magic is %#08x", page, ErrPage, magic)
	case binary.BigEndian.Uint32(src[4:]) != pageSum(src):
		return fmt.Errorf("page %d: %w: checksum does not match", page, ErrPage)
	case version != pageVersion:
		return fmt.Errorf("page %d: %w: version is %d", page, ErrPage, version)
	case index != uint32(page):
		return fmt.Errorf("page %d: %w: it is page %d", page, ErrPage, index)
	case binary.BigEndian.Uint64(src[16:]) != salt:
		return fmt.Errorf("page %d: %w: it is of another metadata area", page, ErrPage)
	case bitsBeyond(src[pageHeader:PageSize], b.blocksIn(page)):
		return fmt.Errorf("page %d: %w: blocks beyond the end are set", page, ErrPage)
	}
	return nil
}

// bitsBeyond reports whether a bit at or after n is set in a page's bits.
func bitsBeyond(p []byte, n int64) bool {
	if n%8 != 0 && p[n/8]>>(n%8) != 0 {
		return true
	}
	for _, c := range p[(n+7)/8:] {
		if c != 0 {
			return true
		}
	}
	return false
}

func pageSum(p []byte) uint32 {
	sum := crc32.Update(0, block.Castagnoli, p[:4])
	return crc32.Update(sum, block.Castagnoli, p[8:PageSize])
}

func (b *Bits) pageWords(page int) []uint64 {
	return b.words[page*pageWords : (page+1)*pageWords]
}

// blocksIn is the number of blocks of the volume in a page: PageBlocks except
// perhaps in the last.
func (b *Bits) blocksIn(page int) int64 {
	return min(PageBlocks, b.blocks-pageStart(page))
}

func pageStart(page int) int64 { return int64(page) * PageBlocks }

func blocksFor(size int64) int64 { return (size + block.Size - 1) / block.Size }

func pagesFor(size int64) int {
	return int((blocksFor(size) + PageBlocks - 1) / PageBlocks)
}
