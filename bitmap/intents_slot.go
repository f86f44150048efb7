// SPDX-License-Identifier: Apache-2.0

package bitmap

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/twinbd/twinbd/internal/block"
)

// The intents on stable storage are a slot (block.EncodeSlot) with this payload:
//
//	offset size
//	     0    8  salt of the metadata area
//	     8    4  number of regions that follow
//	    12    4  zero
//	    16 4×n  the regions, ascending, no region twice
//
// Numbers are big endian.
const (
	intentsMagic   = 0x7477696e62644931 // "twinbdI1"
	intentsVersion = 1
	intentsHeader  = 16
)

// intentsLen is the length of a slot with n intents, in whole PageSize bytes.
func intentsLen(n int) int {
	return int(roundUp(int64(block.SlotHeader+intentsHeader+4*n), PageSize))
}

// EncodedLen is the length in bytes of what Encode makes of the set as it is.
// No more of the slot on stable storage need be written: what was there before
// and is longer does not count any more.
func (in *Intents) EncodedLen() int { return intentsLen(in.Len()) }

// Encode puts the set into dst, which has room for EncodedLen bytes, and
// returns these bytes. The salt is that of the metadata area's header.
func (in *Intents) Encode(dst []byte, salt, sequence uint64) []byte {
	dst = dst[:in.EncodedLen()]
	payload := dst[block.SlotHeader : block.SlotHeader+intentsHeader+4*in.Len()]
	binary.BigEndian.PutUint64(payload[0:], salt)
	binary.BigEndian.PutUint32(payload[8:], uint32(in.Len()))
	binary.BigEndian.PutUint32(payload[12:], 0)
	for i, region := range in.order {
		binary.BigEndian.PutUint32(payload[intentsHeader+4*i:], region)
	}
	return block.EncodeSlot(dst, intentsMagic, intentsVersion, sequence, payload)
}

// DecodeIntents checks a slot of intents at the start of src and returns its
// regions, ascending, and its sequence.
func DecodeIntents(src []byte, l Layout, salt uint64) (regions []uint32, sequence uint64, err error) {
	s, err := block.DecodeSlot(src, intentsMagic)
	if err != nil {
		return nil, 0, err
	}
	if s.Version > intentsVersion {
		return nil, 0, ErrVersion
	}
	p := s.Payload
	if s.Version == 0 || len(p) < intentsHeader {
		return nil, 0, fmt.Errorf("version %d with %d bytes is not known", s.Version, len(p))
	}
	n := binary.BigEndian.Uint32(p[8:])
	switch {
	case binary.BigEndian.Uint32(p[12:]) != 0:
		return nil, 0, errors.New("reserved bytes are not zero")
	case binary.BigEndian.Uint64(p) != salt:
		return nil, 0, errors.New("it is of another metadata area")
	case int64(n) > int64(l.intentLimit):
		return nil, 0, fmt.Errorf("%d intents, at most %d may be set", n, l.intentLimit)
	case int64(len(p)) != intentsHeader+4*int64(n):
		return nil, 0, fmt.Errorf("%d intents in %d bytes", n, len(p))
	}
	regions = make([]uint32, n)
	for i := range regions {
		region := binary.BigEndian.Uint32(p[intentsHeader+4*i:])
		if int64(region) >= l.Regions() || i > 0 && region <= regions[i-1] {
			return nil, 0, fmt.Errorf("intent %d is of region %d, out of order or not within %d", i, region, l.Regions())
		}
		regions[i] = region
	}
	return regions, s.Sequence, nil
}
