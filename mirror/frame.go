// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/twinbd/twinbd/internal/block"
)

// Frames travel between the two nodes on two connections of one session: data
// (writes, flushes and their acknowledgements, in one order) and bulk (resync
// and verify). docs/PROTOCOL.md describes every type. The header, big endian:
//
//	offset size
//	     0    4  magic "tbd1"
//	     4    1  type
//	     5    1  flags
//	     6    2  zero
//	     8    8  session
//	    16    8  sequence: of the first request, or the id of a run
//	    24    4  count
//	    28    4  length of the payload in bytes
//	    32    4  crc32c of the payload
//	    36    4  crc32c of bytes 0 to 35
const (
	frameMagic  = 0x74626431
	frameHeader = 40

	// maxPayload bounds what a peer can make us hold: the longest record and
	// its header, or a run of records, or a run of a resync.
	maxPayload = block.MaxLength + block.RecordHeader

	// maxRun is the length above which a run of records is cut into frames, so
	// that the peer begins to write while the rest is on its way.
	maxRun = 1 << 20
)

type frameType uint8

const (
	frameHello     frameType = 1 + iota // both: who I am and what I have, JSON
	frameVerdict                        // both: what I concluded from the two hellos
	frameBye                            // both: why I end the session, text
	framePing                           // both: are you there
	framePong                           //
	frameBatch                          // primary: records to carry out, in order
	frameAck                            // secondary: outcomes of records
	frameFlush                          // primary: make durable what you have taken
	frameFlushAck                       // secondary: count is the status
	frameDirty                          // target: extents of its dirty blocks; last one flagged
	frameStart                          // source: union durable, become my target
	frameReady                          // target: durably inconsistent, begin
	frameCopy                           // source, bulk: blocks to write
	frameCopyAck                        // target, bulk: durable
	frameFinish                         // source: no block differs; adopt my generation
	frameFinishAck                      // target: adopted, durably
	frameSum                            // verifier, bulk: checksum these blocks
	frameSumReply                       // peer, bulk: one checksum for each block
	frameGone                           // primary: my disk failed, carry on for me
	frameGoneAck                        // secondary: the generation is mine, durably
	frameRead                           // primary without a disk: read for me
	frameReadReply                      // its peer: the bytes; count is the status
	frameRole                           // both: count is 1 when the sender serves from now on, 0 when not
	frameMoment                         // both: sequence is my moment, durably
	frameTypes
)

var frameNames = [frameTypes]string{
	frameHello: "hello", frameVerdict: "verdict", frameBye: "bye", framePing: "ping", framePong: "pong",
	frameBatch: "batch", frameAck: "ack", frameFlush: "flush", frameFlushAck: "flush-ack",
	frameDirty: "dirty", frameStart: "start", frameReady: "ready", frameCopy: "copy", frameCopyAck: "copy-ack",
	frameFinish: "finish", frameFinishAck: "finish-ack", frameSum: "sum", frameSumReply: "sum-reply",
	frameGone: "gone", frameGoneAck: "gone-ack", frameRead: "read", frameReadReply: "read-reply",
	frameRole: "role", frameMoment: "moment",
}

func (t frameType) String() string {
	if t < frameTypes && frameNames[t] != "" {
		return frameNames[t]
	}
	return fmt.Sprintf("frame %d", uint8(t))
}

// Flags of frames.
const (
	flagLast   = 1 << 0 // frameDirty: no more follow
	flagZero   = 1 << 1 // frameCopy: the blocks are zero, no bytes follow
	flagPacked = 1 << 2 // frameCopy: the bytes are compressed with S2
	flagFull   = 1 << 3 // frameStart: every block will be copied
)

// Frame is one decoded frame. Payload lies in the link's inbox and is valid
// until hold is released.
type Frame struct {
	Type     frameType
	Flags    uint8
	Session  uint64
	Sequence uint64
	Count    uint32
	Payload  []byte

	hold block.Hold
}

// The ways in which a frame can be unusable. Each ends the session: after it
// nothing on the connection can be trusted.
var (
	errMagic    = errors.New("not a twinbd peer")
	errHeader   = errors.New("frame header is damaged")
	errPayload  = errors.New("frame payload is damaged")
	errTooLong  = errors.New("frame is too long")
	errSequence = errors.New("frame is out of place")
	errSwamped  = errors.New("the peer asks and takes no answers")
)

// putFrameHeader writes f's header to b; length and sum describe the payload.
func putFrameHeader(b []byte, f *Frame, length int, sum uint32) {
	_ = b[frameHeader-1]
	binary.BigEndian.PutUint32(b[0:], frameMagic)
	b[4], b[5], b[6], b[7] = byte(f.Type), f.Flags, 0, 0
	binary.BigEndian.PutUint64(b[8:], f.Session)
	binary.BigEndian.PutUint64(b[16:], f.Sequence)
	binary.BigEndian.PutUint32(b[24:], f.Count)
	binary.BigEndian.PutUint32(b[28:], uint32(length))
	binary.BigEndian.PutUint32(b[32:], sum)
	binary.BigEndian.PutUint32(b[36:], crc32.Checksum(b[:36], block.Castagnoli))
}

// parseFrameHeader checks the header in b, which has frameHeader bytes, and
// returns it with the payload's length and checksum.
func parseFrameHeader(b []byte) (f Frame, length int, sum uint32, err error) {
	_ = b[frameHeader-1]
	switch {
	case binary.BigEndian.Uint32(b) != frameMagic:
		return f, 0, 0, errMagic
	case binary.BigEndian.Uint32(b[36:]) != crc32.Checksum(b[:36], block.Castagnoli):
		return f, 0, 0, errHeader
	}
	n := binary.BigEndian.Uint32(b[28:])
	if n > maxPayload {
		return f, 0, 0, errTooLong
	}
	f = Frame{
		Type:     frameType(b[4]),
		Flags:    b[5],
		Session:  binary.BigEndian.Uint64(b[8:]),
		Sequence: binary.BigEndian.Uint64(b[16:]),
		Count:    binary.BigEndian.Uint32(b[24:]),
	}
	return f, int(n), binary.BigEndian.Uint32(b[32:]), nil
}

// keep holds the frame's payload in place beyond the call that brought it.
func (f *Frame) keep() block.Hold { return f.hold.Again() }

// sealFrame writes f's header before the payload that is in b already.
func sealFrame(b []byte, f *Frame) {
	payload := b[frameHeader:]
	putFrameHeader(b, f, len(payload), crc32.Checksum(payload, block.Castagnoli))
}

// ackRange says that a run of requests had one outcome; it is the payload of
// frameAck, sixteen bytes each.
type ackRange struct {
	first  uint64
	count  uint32
	status block.Status
}

const ackRangeSize = 16

func putAckRange(b []byte, r ackRange) {
	binary.BigEndian.PutUint64(b, r.first)
	binary.BigEndian.PutUint32(b[8:], r.count)
	binary.BigEndian.PutUint32(b[12:], uint32(r.status))
}

func parseAckRange(b []byte) ackRange {
	return ackRange{binary.BigEndian.Uint64(b), binary.BigEndian.Uint32(b[8:]), block.Status(binary.BigEndian.Uint32(b[12:]))}
}

// extent is a run of blocks; on the wire eight bytes: 40 bits first block, 24
// bits count. So a volume has at most 4 PiB.
type extent uint64

const (
	extentCountBits = 24
	maxExtentCount  = 1<<extentCountBits - 1
	// MaxSize is the largest size of a volume in bytes.
	MaxSize = block.Size << (64 - extentCountBits)
)

func makeExtent(first, count int64) extent { return extent(first<<extentCountBits | count) }
func (x extent) first() int64              { return int64(x >> extentCountBits) }
func (x extent) count() int64              { return int64(x & maxExtentCount) }
