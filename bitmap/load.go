// SPDX-License-Identifier: Apache-2.0

package bitmap

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/twinbd/twinbd/internal/block"
)

// Reader is what Load reads through. ReadAt fills p from offset; a short read
// is an error. Every block.Disk is one.
type Reader interface {
	ReadAt(p []byte, offset int64) error
}

// Metadata is what was found in a metadata area.
type Metadata struct {
	Header   Header
	Sequence uint64 // of the header
	Layout   Layout

	// HeaderTwice says that both copies of the header are valid and say the
	// same. If not, the one that was found stands in one place only: before it is
	// relied upon, it is to be written to both.
	HeaderTwice bool

	// Bits are the dirty blocks that were stored, and all blocks of bad pages,
	// or all blocks if the intents are lost. The intents are not in it.
	Bits *Bits

	// Regions have an intent, ascending. After a crash their blocks may
	// differ: they become dirty, durably, before the intents are given up.
	Regions         []uint32
	IntentsSequence uint64 // of the intents; 0 if there are none to be trusted

	// IntentsLost says that a region may have an intent that was not found.
	// All blocks are dirty. Before an intent is relied upon again, all pages
	// and then both copies of the intents are to be written anew, durably.
	IntentsLost bool

	BadPages []int // pages that were not valid; unsaved and all dirty

	// What was wrong with each copy, by parity of its sequence; nil for those
	// that were good. One bad copy is what an interrupted write leaves.
	HeaderErrors, IntentsErrors [2]error
}

// Load reads a metadata area of size bytes. Bad pages and bad intents are not
// errors, they make blocks dirty; the error is for a header that cannot be
// used: it wraps ErrNone, ErrVersion or what is wrong with each copy. Nothing
// is allocated that the area itself is not large enough for.
func Load(r Reader, size int64) (*Metadata, error) {
	if size < HeaderOffset(1)+HeaderSize {
		return nil, fmt.Errorf("metadata is cut short: %d bytes do not hold both headers", size)
	}
	m := &Metadata{}
	if err := m.loadHeader(r); err != nil {
		return nil, err
	}
	if need := m.Layout.Bytes(); need > size {
		return nil, fmt.Errorf("metadata is cut short: it has %d bytes, a volume of %d bytes needs %d", size, m.Header.Size, need)
	}
	m.Bits = NewBits(m.Header.Size)
	m.loadPages(r)
	if err := m.loadIntents(r); err != nil {
		return nil, err
	}
	return m, nil
}

// loadHeader takes the newer valid slot. Only an invalid slot can be what an
// interrupted write left; a valid one with content that is wrong is refused
// and does not give way to the older.
func (m *Metadata) loadHeader(r Reader) error {
	var newest block.Slot
	var payloads [2][]byte
	for i := range m.HeaderErrors {
		s, err := readHeader(r, uint64(i))
		m.HeaderErrors[i], payloads[i] = err, s.Payload
		if err == nil && (newest.Payload == nil || s.Sequence > newest.Sequence) {
			newest = s
		}
	}
	if newest.Payload == nil {
		if errors.Is(m.HeaderErrors[0], block.ErrSlotEmpty) && errors.Is(m.HeaderErrors[1], block.ErrSlotEmpty) {
			return ErrNone
		}
		return fmt.Errorf("metadata is unreadable: first copy: %w; second copy: %w", m.HeaderErrors[0], m.HeaderErrors[1])
	}
	var err error
	if m.Header, err = headerFrom(newest); err != nil {
		return fmt.Errorf("metadata is not usable: %w", err)
	}
	m.Sequence, m.HeaderTwice = newest.Sequence, bytes.Equal(payloads[0], payloads[1])
	m.Layout, err = m.Header.Layout()
	return err
}

// loadIntents takes the newer valid slot. A slot with a wrong checksum is what
// an interrupted write leaves, and its intents were never relied upon. One
// that cannot be read, or is not ours, may have been the newest: then nothing
// is known, and everything is dirty.
func (m *Metadata) loadIntents(r Reader) error {
	found := false
	buf := make([]byte, m.Layout.IntentsSize())
	for i := range m.IntentsErrors {
		regions, sequence, err := m.readIntents(r, buf, i)
		m.IntentsErrors[i] = err
		switch {
		case errors.Is(err, ErrVersion):
			return fmt.Errorf("intents are not usable: %w", err)
		case err != nil:
			m.IntentsLost = m.IntentsLost || !errors.Is(err, block.ErrSlotCorrupt)
		case !found || sequence > m.IntentsSequence:
			found = true
			m.Regions, m.IntentsSequence = regions, sequence
		}
	}
	if m.IntentsLost = m.IntentsLost || !found; m.IntentsLost {
		m.Bits.Set(0, m.Bits.Blocks())
	}
	return nil
}

func (m *Metadata) readIntents(r Reader, buf []byte, parity int) ([]uint32, uint64, error) {
	if err := r.ReadAt(buf, m.Layout.IntentsOffset(uint64(parity))); err != nil {
		return nil, 0, err
	}
	regions, sequence, err := DecodeIntents(buf, m.Layout, m.Header.Salt)
	if err == nil && sequence%2 != uint64(parity) {
		err = misplaced(sequence)
	}
	return regions, sequence, err
}

// loadPages reads many pages at a time, and one by one where that fails, so
// that one bad spot costs one page.
func (m *Metadata) loadPages(r Reader) {
	l := m.Layout
	buf := make([]byte, min(formatChunk, l.Pages()*PageSize))
	for page := 0; page < l.Pages(); {
		n := min(len(buf)/PageSize, l.Pages()-page)
		whole := r.ReadAt(buf[:n*PageSize], l.PageOffset(page)) == nil
		for i := range n {
			p := buf[i*PageSize:][:PageSize]
			if !whole && r.ReadAt(p, l.PageOffset(page+i)) != nil {
				clear(p) // no valid page
			}
			if m.Bits.DecodePage(page+i, m.Header.Salt, p) != nil {
				m.BadPages = append(m.BadPages, page+i)
			}
		}
		page += n
	}
}

// readHeader reads the slot for sequences of one parity. A slot in the place of
// the other would be overwritten before it is superseded.
func readHeader(r Reader, parity uint64) (block.Slot, error) {
	p := make([]byte, HeaderSize)
	if err := r.ReadAt(p, HeaderOffset(parity)); err != nil {
		return block.Slot{}, err
	}
	s, err := block.DecodeSlot(p, headerMagic)
	if err == nil && s.Sequence%2 != parity {
		err = misplaced(s.Sequence)
	}
	return s, err
}

func misplaced(sequence uint64) error {
	return fmt.Errorf("sequence %d does not belong here", sequence)
}
