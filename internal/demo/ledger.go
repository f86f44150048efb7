// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/twinbd/twinbd/internal/block"
)

// ledger remembers, outside of the volume, what was acknowledged inside of it.
// It owns the blocks at the volume's end, the slots. A write fills a slot with a
// content that follows from the slot and a sequence number, so that what is read
// tells which write it is, and whether it is whole.
//
// A slot has at most one write under way. So after a crash it must hold the
// last acknowledged write, or the one that was under way, and nothing else.
//
// All methods may be called from anywhere; the caller sees to it that a slot is
// written by one at a time.
type ledger struct {
	offset int64 // of the first slot, in bytes

	mu      sync.Mutex
	slots   []slot
	last    uint64 // sequence number of the newest write
	acked   uint64 // acknowledged since mark
	touched int64  // slots among them
	phase   int    // counts marks
}

type slot struct {
	acked   uint64 // sequence number of the last acknowledged write; 0: none, the block is as it was made
	pending uint64 // of the write that is not acknowledged, or 0
	phase   int    // of the last acknowledgement
}

func newLedger(l layout) *ledger {
	return &ledger{offset: l.image, slots: make([]slot, l.ledger/block.Size), phase: 1}
}

func (g *ledger) at(index int) int64 { return g.offset + int64(index)*block.Size }

// spare is a slot that the load leaves alone: the last one.
func (g *ledger) spare() int { return len(g.slots) - 1 }

// begin fills content with the next write to a slot.
func (g *ledger) begin(index int, content []byte) {
	g.mu.Lock()
	g.last++
	sequence := g.last
	g.slots[index].pending = sequence
	g.mu.Unlock()
	fill(content, index, sequence)
}

// end says that the slot's write was acknowledged.
func (g *ledger) end(index int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := &g.slots[index]
	s.acked, s.pending = s.pending, 0
	g.acked++
	if s.phase != g.phase {
		s.phase = g.phase
		g.touched++
	}
}

// mark begins to count anew.
func (g *ledger) mark() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.phase++
	g.acked, g.touched = 0, 0
}

// counted returns how many writes were acknowledged since mark, to how many
// different blocks.
func (g *ledger) counted() (writes uint64, blocks int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.acked, g.touched
}

// reader is what the ledger is compared with.
type reader interface {
	ReadAt(p []byte, offset int64) error
}

// verify reads every slot and returns how many hold an acknowledged write, and
// how many hold the one that was under way. What it found counts as acknowledged
// from then on, for it was read. Nobody may write meanwhile.
func (g *ledger) verify(r reader) (acknowledged, underWay int, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	piece := make([]byte, min(pieceSize, len(g.slots)*block.Size))
	perPiece := len(piece) / block.Size
	for first := 0; first < len(g.slots); first += perPiece {
		p := piece[:min(perPiece, len(g.slots)-first)*block.Size]
		if err := r.ReadAt(p, g.at(first)); err != nil {
			return 0, 0, fmt.Errorf("read ledger: %w", err)
		}
		for i := 0; len(p) > 0; i, p = i+1, p[block.Size:] {
			s := &g.slots[first+i]
			found, err := s.recognise(first+i, p[:block.Size])
			switch {
			case err != nil:
				return 0, 0, fmt.Errorf("block at byte %d: %w", g.at(first+i), err)
			case found == s.pending && found != 0:
				underWay++
			case found != 0:
				acknowledged++
			}
			s.acked, s.pending = found, 0
		}
	}
	return acknowledged, underWay, nil
}

// recognise returns the sequence number of what a slot's block holds, when that
// is something that it may hold.
func (s *slot) recognise(index int, content []byte) (uint64, error) {
	found := binary.BigEndian.Uint64(content)
	if found != s.acked && (found != s.pending || found == 0) {
		return 0, fmt.Errorf("write %d was acknowledged, the block holds write %d", s.acked, found)
	}
	want := make([]byte, len(content))
	if found != 0 {
		fill(want, index, found)
	}
	if !bytes.Equal(content, want) {
		return 0, fmt.Errorf("write %d is not whole", found)
	}
	return found, nil
}

// fill makes the content of a write: its number, then noise that follows from
// slot and number.
func fill(content []byte, index int, sequence uint64) {
	noise := rand.NewPCG(uint64(index), sequence)
	binary.BigEndian.PutUint64(content, sequence)
	for p := content[8:]; len(p) > 0; p = p[8:] {
		binary.BigEndian.PutUint64(p, noise.Uint64())
	}
}
