// SPDX-License-Identifier: Apache-2.0

package block

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// A slot is a record on stable storage that survives a torn write (rule 13):
// it is written alternately to two places, each with a sequence number and a
// checksum, and the valid one with the higher number counts. A write that was
// cut leaves the other place as it was.
//
//	offset size
//	     0    8  magic, chosen by the owner
//	     8    4  version of the payload
//	    12    4  length of the payload in bytes
//	    16    8  sequence, odd and even alternate between the two places
//	    24    4  zero
//	    28    4  crc32c of bytes 0 to 27 and of the payload
//	    32    …  payload
//
// All numbers are big endian.

// SlotHeader is the length in bytes of what precedes a slot's payload.
const SlotHeader = 32

// The ways in which a slot can be unusable.
var (
	ErrSlotEmpty   = errors.New("empty")
	ErrSlotForeign = errors.New("not of this kind")
	ErrSlotCorrupt = errors.New("checksum does not match")
)

// Slot is one decoded slot.
type Slot struct {
	Version  uint32
	Sequence uint64
	Payload  []byte // aliases what was decoded
}

// Castagnoli is the table of crc32c, the checksum of everything that twinbd
// stores or sends.
var Castagnoli = crc32.MakeTable(crc32.Castagnoli)

// EncodeSlot puts a slot at the start of b, which must have room for
// SlotHeader and the payload, zeroes the rest of b and returns b.
func EncodeSlot(b []byte, magic uint64, version uint32, sequence uint64, payload []byte) []byte {
	if len(b) < SlotHeader+len(payload) {
		panic(fmt.Sprintf("block: slot of %d bytes in %d", SlotHeader+len(payload), len(b)))
	}
	clear(b[copy(b[SlotHeader:], payload)+SlotHeader:])
	binary.BigEndian.PutUint64(b[0:], magic)
	binary.BigEndian.PutUint32(b[8:], version)
	binary.BigEndian.PutUint32(b[12:], uint32(len(payload)))
	binary.BigEndian.PutUint64(b[16:], sequence)
	binary.BigEndian.PutUint32(b[24:], 0)
	binary.BigEndian.PutUint32(b[28:], slotSum(b, len(payload)))
	return b
}

// DecodeSlot checks the slot at the start of b.
func DecodeSlot(b []byte, magic uint64) (Slot, error) {
	if len(b) < SlotHeader {
		return Slot{}, ErrSlotCorrupt
	}
	got := binary.BigEndian.Uint64(b)
	length := binary.BigEndian.Uint32(b[12:])
	switch {
	case got == 0:
		return Slot{}, ErrSlotEmpty
	case got != magic:
		return Slot{}, ErrSlotForeign
	case uint64(length) > uint64(len(b)-SlotHeader):
		return Slot{}, ErrSlotCorrupt
	case binary.BigEndian.Uint32(b[28:]) != slotSum(b, int(length)):
		return Slot{}, ErrSlotCorrupt
	}
	return Slot{
		Version:  binary.BigEndian.Uint32(b[8:]),
		Sequence: binary.BigEndian.Uint64(b[16:]),
		Payload:  b[SlotHeader : SlotHeader+int(length)],
	}, nil
}

// NewestSlot returns the valid one of two slots with the higher sequence, and
// which it was (0 or 1). When neither is valid the error says why for both.
func NewestSlot(a, b []byte, magic uint64) (Slot, int, error) {
	sa, ea := DecodeSlot(a, magic)
	sb, eb := DecodeSlot(b, magic)
	switch {
	case ea != nil && eb != nil:
		return Slot{}, 0, fmt.Errorf("first copy: %w; second copy: %w", ea, eb)
	case eb != nil || ea == nil && sa.Sequence >= sb.Sequence:
		return sa, 0, nil
	default:
		return sb, 1, nil
	}
}

func slotSum(b []byte, length int) uint32 {
	sum := crc32.Update(0, Castagnoli, b[:28])
	return crc32.Update(sum, Castagnoli, b[SlotHeader:SlotHeader+length])
}
