// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"encoding/binary"

	"github.com/twinbd/twinbd/internal/block"
)

// statusRoom is the memory of one BLOCK_STATUS request: where the engine puts
// the extents, and the reply made of them. A session has at most maxStatus,
// made when they are first needed.
type statusRoom struct {
	next    *statusRoom
	extents [2][maxExtents]block.Extent
	reply   [2 * (statusHeader + maxExtents*extentLength)]byte
}

// takeStatus finds room for a BLOCK_STATUS request's answer and puts empty
// lists into the request: as many extents as their capacity may be appended.
func (s *Session) takeStatus(r *request) bool {
	room := s.statuses
	switch {
	case room != nil:
		s.statuses, room.next = room.next, nil
	case s.reports < maxStatus:
		room = new(statusRoom)
		s.reports++
	default:
		return false
	}
	limit := maxExtents
	if r.Flags&block.ReqOne != 0 {
		limit = 1
	}
	r.status, r.Contexts = room, s.terms.contexts
	for i := range r.Extents {
		r.Extents[i] = room.extents[i][:0:limit]
	}
	return true
}

// putStatus queues the reply to a BLOCK_STATUS: a chunk for each context.
func (s *Session) putStatus(r *request) {
	b := r.status.reply[:0]
	rest := r.Contexts
	for _, c := range contexts {
		if rest&c.bit == 0 {
			continue
		}
		rest &^= c.bit
		start := len(b)
		b = b[:start+statusHeader]
		b = appendExtents(b, r, c.bit)
		flags := uint16(0)
		if rest == 0 {
			flags = chunkDone
		}
		putChunk(b[start:], chunkStatus, flags, r.Cookie, len(b)-start-chunkHeader)
		binary.BigEndian.PutUint32(b[start+chunkHeader:], c.id)
	}
	s.out.put(b, r)
}

// appendExtents writes one context's extents, cut to the range that was asked
// about. If the engine found none the answer is the safe one.
func appendExtents(b []byte, r *request, bit uint8) []byte {
	left := uint32(r.Length)
	before := len(b)
	for _, e := range r.Extents[contextIndex(bit)] {
		if e.Length == 0 || left == 0 {
			continue
		}
		n := min(e.Length, left)
		left -= n
		b = binary.BigEndian.AppendUint32(b, n)
		b = binary.BigEndian.AppendUint32(b, e.Flags)
	}
	if len(b) == before {
		b = binary.BigEndian.AppendUint32(b, left)
		b = binary.BigEndian.AppendUint32(b, unknownStatus(bit))
	}
	return b
}

// contextIndex is where in Request.Extents the answer for a context bit is.
func contextIndex(bit uint8) int {
	if bit == block.ContextAllocation {
		return 0
	}
	return 1
}

// unknownStatus is what to say of a range about which nothing is known: for
// all that one knows it is data, and the peer does not have it.
func unknownStatus(bit uint8) uint32 {
	if bit == block.ContextDirty {
		return block.ExtentDirty
	}
	return 0
}
