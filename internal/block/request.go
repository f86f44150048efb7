// SPDX-License-Identifier: Apache-2.0

package block

import (
	"encoding/binary"
	"fmt"
)

// Size is the unit in which dirtiness is counted, and to a multiple of which
// the size of every volume is rounded: 4 KiB.
const Size = 4096

// MaxLength is the longest payload of one request, in bytes: 32 MiB, the
// largest that a portable NBD client may send.
const MaxLength = 32 << 20

// Op says what a request or a disk task does. The values are those of the
// commands in the NBD specification (doc/proto.md of NetworkBlockDevice/nbd,
// "Request types"), so that a request's bytes can pass to the peer untouched.
type Op uint16

// The operations. Flush makes everything that was acknowledged before durable;
// Cache asks for the range to be read ahead.
const (
	Read        Op = 0
	Write       Op = 1
	Flush       Op = 3
	Trim        Op = 4
	Cache       Op = 5
	WriteZeroes Op = 6
	BlockStatus Op = 7
)

// Changes reports whether the operation can change the content of a disk.
func (o Op) Changes() bool { return o == Write || o == Trim || o == WriteZeroes }

func (o Op) String() string {
	switch o {
	case Read:
		return "read"
	case Write:
		return "write"
	case Flush:
		return "flush"
	case Trim:
		return "trim"
	case Cache:
		return "cache"
	case WriteZeroes:
		return "write-zeroes"
	case BlockStatus:
		return "block-status"
	}
	return fmt.Sprintf("op %d", uint16(o))
}

// Flags modify an operation; the values are those of the NBD specification's
// command flags.
type Flags uint16

// The command flags.
const (
	FUA      Flags = 1 << 0 // answer only when the data is durable
	NoHole   Flags = 1 << 1 // WriteZeroes: keep the space
	DF       Flags = 1 << 2 // Read: answer in one piece
	ReqOne   Flags = 1 << 3 // BlockStatus: one extent
	FastZero Flags = 1 << 4 // WriteZeroes: fail with NotSupported rather than be slow
)

// Status is the outcome of a request or a task; the values are those of the
// NBD specification's error values, and travel between the nodes.
type Status uint32

// The outcomes.
const (
	OK           Status = 0
	NotPermitted Status = 1   // EPERM: a write to a read-only export
	IOError      Status = 5   // EIO: no disk could do it
	NoMemory     Status = 12  // ENOMEM
	Invalid      Status = 22  // EINVAL: the request makes no sense
	NoSpace      Status = 28  // ENOSPC: beyond the end, or the disk is full
	Overflow     Status = 75  // EOVERFLOW: the answer would be too long
	NotSupported Status = 95  // ENOTSUP
	ShuttingDown Status = 108 // ESHUTDOWN: this node serves no longer
)

func (s Status) String() string {
	switch s {
	case OK:
		return "ok"
	case NotPermitted:
		return "not permitted"
	case IOError:
		return "input/output error"
	case NoMemory:
		return "out of memory"
	case Invalid:
		return "invalid request"
	case NoSpace:
		return "no space"
	case Overflow:
		return "overflow"
	case NotSupported:
		return "not supported"
	case ShuttingDown:
		return "shutting down"
	}
	return fmt.Sprintf("status %d", uint32(s))
}

// Error makes a Status usable as an error. OK is not an error; use Err.
func (s Status) Error() string { return s.String() }

// Err returns nil for OK and the status itself otherwise.
func (s Status) Err() error {
	if s == OK {
		return nil
	}
	return s
}

// Extent is a run of bytes with one property, in the answer to BlockStatus.
type Extent struct {
	Length uint32 // bytes
	Flags  uint32 // meaning depends on the context, see ExtentHole and ExtentDirty
}

// The flags of an extent. Hole and Zero are those of NBD's base:allocation;
// Dirty is bit 0 of the context twinbd:dirty.
const (
	ExtentHole  uint32 = 1 << 0
	ExtentZero  uint32 = 1 << 1
	ExtentDirty uint32 = 1 << 0
)

// Status contexts that a BlockStatus request may ask for, as bits of
// Request.Contexts.
const (
	ContextAllocation uint8 = 1 << 0 // base:allocation
	ContextDirty      uint8 = 1 << 1 // twinbd:dirty: blocks that the peer does not have
)

// Owner is told when its request is done. Complete is called exactly once for
// each submitted request, on the thread that drives the volume, and must not
// call back into the engine. From then on the request is the owner's again.
type Owner interface {
	Complete(*Request)
}

// Request is one request of a client. The front end fills it and owns it and
// its buffers; between Submit and Complete it must not touch them.
type Request struct {
	Op     Op
	Flags  Flags
	Offset int64 // bytes
	Length int64 // bytes; at most MaxLength for Read and Write

	// Data is the payload of a Write, or the room for the answer of a Read;
	// nil otherwise.
	Data []byte

	// Record is the request in wire form, header and payload, for Write, Trim
	// and WriteZeroes; Data is its tail. The engine may send it to the peer
	// as it is. Nobody changes it.
	Record []byte

	Contexts uint8       // BlockStatus: what is asked, bits of Context…
	Extents  [2][]Extent // BlockStatus: the answers, one per context bit, in the owner's memory

	Status Status // the outcome, set before Complete
	Owner  Owner  // who is told
	Cookie uint64 // the owner's own: the client's handle

	Engine any // the engine's own between Submit and Complete: a pointer, never read by the front end
}

// Batch is the unit in which requests pass from a front end to an engine: all
// that one read of the socket brought, in its order.
type Batch struct {
	Requests []*Request
}

// RecordHeader is the length in bytes of a record's header.
const RecordHeader = 28

// RecordMagic opens every record; it is NBD's request magic.
const RecordMagic = 0x25609513

// PutRecord writes the header of a record to b, which must have RecordHeader
// bytes. The layout (magic 4, flags 2, op 2, cookie 8, offset 8, length 4, all
// big endian) is that of an NBD request, so that the front end can hand over
// the bytes it received and nothing is marshalled twice.
func PutRecord(b []byte, op Op, flags Flags, cookie uint64, offset int64, length int64) {
	_ = b[RecordHeader-1]
	binary.BigEndian.PutUint32(b[0:], RecordMagic)
	binary.BigEndian.PutUint16(b[4:], uint16(flags))
	binary.BigEndian.PutUint16(b[6:], uint16(op))
	binary.BigEndian.PutUint64(b[8:], cookie)
	binary.BigEndian.PutUint64(b[16:], uint64(offset))
	binary.BigEndian.PutUint32(b[24:], uint32(length))
}

// Record is the decoded header of a record.
type Record struct {
	Op     Op
	Flags  Flags
	Cookie uint64
	Offset uint64 // bytes, as received: not yet checked against the volume
	Length uint32 // bytes
}

// ParseRecord decodes the header at the start of b, which must have at least
// RecordHeader bytes. ok is false when the magic is wrong.
func ParseRecord(b []byte) (r Record, ok bool) {
	_ = b[RecordHeader-1]
	if binary.BigEndian.Uint32(b) != RecordMagic {
		return Record{}, false
	}
	return Record{
		Flags:  Flags(binary.BigEndian.Uint16(b[4:])),
		Op:     Op(binary.BigEndian.Uint16(b[6:])),
		Cookie: binary.BigEndian.Uint64(b[8:]),
		Offset: binary.BigEndian.Uint64(b[16:]),
		Length: binary.BigEndian.Uint32(b[24:]),
	}, true
}
