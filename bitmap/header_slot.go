// SPDX-License-Identifier: Apache-2.0

package bitmap

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/twinbd/twinbd/internal/block"
)

// HeaderSize is the length in bytes of a stored header: a slot
// (block.EncodeSlot) with this payload, and zeroes.
//
//	offset size
//	     0    8  size of the volume in bytes
//	     8    4  size of a region in bytes
//	    12    4  limit of intents
//	    16    8  salt of the area
//	    24   16  volume ID
//	    40    1  state: 1 blank, 2 fresh, 3 inconsistent, 4 consistent, 5 failed
//	    41    1  flags: 1 last primary, 2 serving
//	    42    6  zero
//	    48   16  generation
//	    64   16  base
//	    80   16  intended
//	    96  256  ancestors: 16 generations, newest first, then zeroes
//	   352    8  number of generations
//	   360    8  moment
//	   368    8  zero
//	   376    8  moment of the peer
//	   384    8  resync ID
//	   392   65  cluster: length, bytes of UTF-8, zeroes; so are all that follow
//	   457   65  service
//	   522   65  volume
//	   587   65  node
//	   652   65  peer
//	   717  256  disk ID
//	   973  129  forced
//	  1102  256  reason
//	  1358
//
// Numbers are big endian.
const HeaderSize = 4096

// reserved is the length of the zeroes between the moments.
const reserved = 8

const (
	headerMagic   = 0x7477696e62644831 // "twinbdH1"
	headerVersion = 1
	headerPayload = 1358
)

const (
	flagLastPrimary = 1 << iota
	flagServing
)

// Encode puts the header into dst, which has HeaderSize bytes. It is an error
// when a field cannot be stored.
func (h *Header) Encode(dst []byte, sequence uint64) error {
	if err := h.Validate(); err != nil {
		return fmt.Errorf("encode header: %w", err)
	}
	var flags byte
	if h.LastPrimary {
		flags |= flagLastPrimary
	}
	if h.Serving {
		flags |= flagServing
	}
	p := make([]byte, 0, headerPayload)
	p = binary.BigEndian.AppendUint64(p, uint64(h.Size))
	p = binary.BigEndian.AppendUint32(p, uint32(h.RegionSize))
	p = binary.BigEndian.AppendUint32(p, uint32(h.IntentLimit))
	p = binary.BigEndian.AppendUint64(p, h.Salt)
	p = append(p, h.VolumeID[:]...)
	p = append(p, byte(h.State), flags, 0, 0, 0, 0, 0, 0)
	p = append(p, h.Generation[:]...)
	p = append(p, h.Base[:]...)
	p = append(p, h.Intended[:]...)
	for _, a := range h.Ancestors {
		p = append(p, a[:]...)
	}
	p = binary.BigEndian.AppendUint64(p, h.Generations)
	p = binary.BigEndian.AppendUint64(p, h.Moment)
	p = append(p, make([]byte, reserved)...)
	p = binary.BigEndian.AppendUint64(p, h.PeerMoment)
	p = binary.BigEndian.AppendUint64(p, h.ResyncID)
	for _, name := range []string{h.Cluster, h.Service, h.Volume, h.Node, h.Peer} {
		p = appendText(p, name, MaxName)
	}
	p = appendText(p, h.DiskID, MaxDiskID)
	p = appendText(p, clip(h.Forced, MaxForced), MaxForced)
	p = appendText(p, clip(h.Reason, MaxReason), MaxReason)
	block.EncodeSlot(dst[:HeaderSize], headerMagic, headerVersion, sequence, p)
	return nil
}

// DecodeHeader checks a stored header and returns it and its sequence. The
// error wraps ErrVersion or one of block's for slots, or says what is wrong.
func DecodeHeader(src []byte) (Header, uint64, error) {
	s, err := block.DecodeSlot(src, headerMagic)
	if err != nil {
		return Header{}, 0, err
	}
	h, err := headerFrom(s)
	return h, s.Sequence, err
}

func headerFrom(s block.Slot) (Header, error) {
	switch {
	case s.Version > headerVersion:
		return Header{}, ErrVersion
	case s.Version == 0 || len(s.Payload) != headerPayload:
		return Header{}, fmt.Errorf("version %d with %d bytes is not known", s.Version, len(s.Payload))
	}
	var h Header
	r := fields{rest: s.Payload}
	h.Size = int64(r.uint64())
	h.RegionSize = int64(r.uint32())
	h.IntentLimit = int(r.uint32())
	h.Salt = r.uint64()
	r.bytes(h.VolumeID[:])
	h.State = State(r.next(1)[0])
	flags := r.next(1)[0]
	h.LastPrimary = flags&flagLastPrimary != 0
	h.Serving = flags&flagServing != 0
	if flags&^(flagLastPrimary|flagServing) != 0 || !isZero(r.next(6)) {
		return Header{}, fmt.Errorf("unknown flags %#x", flags)
	}
	r.bytes(h.Generation[:])
	r.bytes(h.Base[:])
	r.bytes(h.Intended[:])
	for i := range h.Ancestors {
		r.bytes(h.Ancestors[i][:])
	}
	h.Generations, h.Moment = r.uint64(), r.uint64()
	if !isZero(r.next(reserved)) {
		return Header{}, fmt.Errorf("reserved bytes are not zero")
	}
	h.PeerMoment, h.ResyncID = r.uint64(), r.uint64()
	for _, name := range []*string{&h.Cluster, &h.Service, &h.Volume, &h.Node, &h.Peer} {
		*name = r.text(MaxName)
	}
	h.DiskID = r.text(MaxDiskID)
	h.Forced = r.text(MaxForced)
	h.Reason = r.text(MaxReason)
	if r.bad {
		return Header{}, errors.New("a text is not as long as it says")
	}
	return h, h.Validate()
}

// fields takes a payload of known length apart.
type fields struct {
	rest []byte
	bad  bool // a text was malformed
}

func (r *fields) next(n int) []byte {
	p := r.rest[:n]
	r.rest = r.rest[n:]
	return p
}

func (r *fields) bytes(dst []byte) { copy(dst, r.next(len(dst))) }
func (r *fields) uint32() uint32   { return binary.BigEndian.Uint32(r.next(4)) }
func (r *fields) uint64() uint64   { return binary.BigEndian.Uint64(r.next(8)) }

func (r *fields) text(most int) string {
	p := r.next(1 + most)
	n := int(p[0])
	if n > most || !isZero(p[1+n:]) {
		r.bad = true
		return ""
	}
	s := string(p[1 : 1+n])
	if checkText(s, most) != nil {
		r.bad = true
	}
	return s
}

// appendText appends s, which is at most most bytes long, in 1+most bytes.
func appendText(p []byte, s string, most int) []byte {
	p = append(p, byte(len(s)))
	p = append(p, s...)
	return append(p, make([]byte, most-len(s))...)
}

func isZero(p []byte) bool {
	for _, c := range p {
		if c != 0 {
			return false
		}
	}
	return true
}
