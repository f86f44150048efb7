// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"errors"
	"fmt"
	"io"

	"github.com/twinbd/twinbd/internal/block"
)

// A slot file keeps one small payload in two slots of slotSize bytes (see
// block.EncodeSlot) and is safe against more than a torn write:
//
//   - A store writes both slots, one after the other, each flushed. So at rest
//     both say the same, and a slot that rots takes nothing with it: the other
//     is never older than what was told to anybody.
//   - A process may die between a write and its flush, or after a flush that
//     failed. What its successor reads may then exist in memory only. So
//     opening writes what was read to a new file, which takes the name once it is
//     durable; the old file is not touched before.
//   - After a failed write or flush nothing is retried (rule 8): the owner uses
//     the slot file no more, and says so.
//
// Two damaged slots are an error, never an empty file.

// slotSize is that of one slot in bytes: a page, and on most disks a sector, so
// that writing one slot cannot hurt the other.
const slotSize = 4096

// newSuffix marks a file that is not complete yet.
const newSuffix = ".new"

// slotKind is what a slot file holds.
type slotKind struct {
	magic   uint64
	version uint32 // of the payload
}

// slotFile is an open slot file. Calls may not overlap.
type slotFile struct {
	file     File
	kind     slotKind
	sequence uint64 // of the last slot written
	slot     [slotSize]byte
}

// openSlots reads the slot file of that name and makes durable what it read.
// damaged is set when only one slot could be used.
func openSlots(dir Directory, name string, kind slotKind) (s *slotFile, payload []byte, damaged error, err error) {
	both, err := readSlots(dir, name)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("read %s: %w", name, err)
	}
	slot, _, err := block.NewestSlot(both[:slotSize], both[slotSize:], kind.magic)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("read %s: %w", name, err)
	}
	if slot.Version != kind.version {
		return nil, nil, nil, fmt.Errorf("read %s: it has version %d and this twinbd reads version %d: use the version that wrote it",
			name, slot.Version, kind.version)
	}
	for place := range 2 {
		if _, err := block.DecodeSlot(both[place*slotSize:(place+1)*slotSize], kind.magic); err != nil {
			damaged = fmt.Errorf("read copy %d of %s: %w", place+1, name, err)
		}
	}
	s, err = createSlots(dir, name, kind, slot.Sequence, slot.Payload)
	return s, slot.Payload, damaged, err
}

func readSlots(dir Directory, name string) ([]byte, error) {
	f, err := dir.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	both := make([]byte, 2*slotSize)
	// What a short file lacks is zero, which no checksum takes for a slot.
	if _, err := f.ReadAt(both, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return both, nil
}

// createSlots makes a slot file of that name, in place of one that exists, and
// returns when it is durable. sequence is the last that was used.
func createSlots(dir Directory, name string, kind slotKind, sequence uint64, payload []byte) (*slotFile, error) {
	s := &slotFile{kind: kind, sequence: sequence}
	if err := s.create(dir, name, payload); err != nil {
		return nil, fmt.Errorf("make %s: %w", name, err)
	}
	return s, nil
}

func (s *slotFile) create(dir Directory, name string, payload []byte) error {
	f, err := dir.Create(name + newSuffix)
	if err != nil {
		return err
	}
	s.file = f
	// Closed before it is renamed: an open file keeps its name on Windows.
	if err := errors.Join(s.write(payload), s.write(payload), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := dir.Rename(name+newSuffix, name); err != nil {
		return err
	}
	if err := dir.Sync(); err != nil {
		return err
	}
	s.file, err = dir.Open(name)
	return err
}

// store replaces the payload, durably. After an error nobody knows what the
// file holds.
func (s *slotFile) store(payload []byte) error {
	for range 2 {
		if err := s.write(payload); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		if err := s.file.Sync(); err != nil {
			return fmt.Errorf("flush: %w", err)
		}
	}
	return nil
}

// write puts the payload into the slot whose turn it is.
func (s *slotFile) write(payload []byte) error {
	s.sequence++
	block.EncodeSlot(s.slot[:], s.kind.magic, s.kind.version, s.sequence, payload)
	_, err := s.file.WriteAt(s.slot[:], int64(s.sequence%2)*slotSize)
	return err
}

func (s *slotFile) close() error { return s.file.Close() }
