// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"encoding/binary"

	"github.com/twinbd/twinbd/internal/block"
)

// complete turns the outcome of a request into its reply. The request is
// recycled now, unless the reply lies in its memory.
func (s *Session) complete(r *request) {
	s.stats.InFlight--
	r.input.Release()
	r.input, r.Record = block.Hold{}, nil
	switch {
	case r.Status != block.OK:
		s.stats.Failed++
		if !s.closed {
			s.putError(r.Cookie, failure(&r.Request))
		}
	case s.closed:
	case r.Op == block.Read:
		s.stats.BytesRead += uint64(r.Length)
		s.putData(r)
		return
	case r.Op == block.BlockStatus:
		s.putStatus(r)
		return
	default:
		if r.Op == block.Write {
			s.stats.BytesWritten += uint64(r.Length)
		}
		putSimple(s.out.small(simpleHeader), block.OK, r.Cookie)
	}
	s.recycle(r)
	s.rest()
}

// putError queues an error reply. Where replies are structured it says why;
// for a READ that form is mandatory.
func (s *Session) putError(cookie uint64, p *problem) {
	if !s.terms.structured {
		putSimple(s.out.small(simpleHeader), p.status, cookie)
		return
	}
	n := errorHeader + len(p.text)
	b := s.out.small(n)
	putChunk(b, chunkError, chunkDone, cookie, n-chunkHeader)
	binary.BigEndian.PutUint32(b[chunkHeader:], uint32(p.status))
	binary.BigEndian.PutUint16(b[chunkHeader+4:], uint16(len(p.text)))
	copy(b[errorHeader:], p.text)
}

// putData queues the reply to a READ: the memory that was set aside for it,
// with the header filled in.
func (s *Session) putData(r *request) {
	switch {
	case !s.terms.structured:
		putSimple(r.answer, block.OK, r.Cookie)
	case r.Flags&block.DF == 0 && r.Length >= sparseLength:
		s.putSparse(r)
		return
	default:
		putDataChunk(r.answer, chunkDone, r.Cookie, r.Offset, int(r.Length))
	}
	s.out.put(r.answer, r)
}

// putSimple writes the header of a simple reply.
func putSimple(b []byte, status block.Status, cookie uint64) {
	_ = b[simpleHeader-1]
	binary.BigEndian.PutUint32(b[0:], magicSimple)
	binary.BigEndian.PutUint32(b[4:], uint32(status))
	binary.BigEndian.PutUint64(b[8:], cookie)
}

// putChunk writes the header of a chunk with length bytes after it.
func putChunk(b []byte, kind, flags uint16, cookie uint64, length int) {
	_ = b[chunkHeader-1]
	binary.BigEndian.PutUint32(b[0:], magicStructured)
	binary.BigEndian.PutUint16(b[4:], flags)
	binary.BigEndian.PutUint16(b[6:], kind)
	binary.BigEndian.PutUint64(b[8:], cookie)
	binary.BigEndian.PutUint32(b[16:], uint32(length))
}

// putDataChunk writes what precedes length bytes of data from offset.
func putDataChunk(b []byte, flags uint16, cookie uint64, offset int64, length int) {
	putChunk(b, chunkData, flags, cookie, 8+length)
	binary.BigEndian.PutUint64(b[chunkHeader:], uint64(offset))
}

// putHoleChunk writes a whole hole chunk.
func putHoleChunk(b []byte, flags uint16, cookie uint64, offset int64, length int) {
	_ = b[holeLength-1]
	putChunk(b, chunkHole, flags, cookie, holeLength-chunkHeader)
	binary.BigEndian.PutUint64(b[chunkHeader:], uint64(offset))
	binary.BigEndian.PutUint32(b[chunkHeader+8:], uint32(length))
}
