// SPDX-License-Identifier: Apache-2.0

package block

import "errors"

// ErrWouldBlock is returned by the optional Try… methods when the answer is
// not at hand; the caller then uses the blocking form on a worker.
var ErrWouldBlock = errors.New("would block")

// Disk is one store of bytes: the data of a volume, or its metadata. Offsets
// and lengths are bytes; any alignment is allowed. Calls may overlap, except
// that Close is the last. A short read or write is an error. Implementations
// return an error that wraps a Status or a system error; StatusOf maps both.
type Disk interface {
	// Size is the number of bytes; it does not change while the disk is open.
	Size() int64

	// ReadAt fills p from offset. WriteAt takes p at offset: when it returns
	// nil the bytes are read back by every later ReadAt, and survive a power
	// cut only after the next successful Sync.
	ReadAt(p []byte, offset int64) error
	WriteAt(p []byte, offset int64) error

	// Zero makes the range read as zeroes. With punch the space may be given
	// back; without it the space stays allocated.
	Zero(offset, length int64, punch bool) error

	// Sync makes durable what WriteAt and Zero took before it was called. An
	// error means that the disk may have lost any of it: it is not retried.
	Sync() error

	// Close releases the disk and its lock.
	Close() error
}

// Vectored is implemented by disks that can take several buffers for adjacent
// ranges in one call.
type Vectored interface {
	WriteVectorAt(buffers [][]byte, offset int64) error
}

// TryReader is implemented by disks that can tell whether a read would wait.
type TryReader interface {
	// TryReadAt is ReadAt, or ErrWouldBlock with p in any state.
	TryReadAt(p []byte, offset int64) error
}

// Mapper is implemented by disks that know their holes.
type Mapper interface {
	// NextData returns the first range of allocated bytes at or after offset;
	// start == Size when there is none. What lies before start is a hole and
	// reads as zeroes.
	NextData(offset int64) (start, end int64, err error)
}

// Advisor is implemented by disks that can steer the page cache. All of it is
// advice: errors are not reported.
type Advisor interface {
	WillNeed(offset, length int64)       // read ahead
	Drop(offset, length int64)           // forget clean pages
	StartWriteback(offset, length int64) // begin writing dirty pages, without waiting
}

// FastZeroer is implemented by disks whose Zero is quicker than writing zeroes.
type FastZeroer interface {
	FastZero() bool
}

// Target says which of a volume's stores a task is for.
type Target uint8

// The stores.
const (
	Data Target = iota
	Metadata
)

// Task is one operation that an engine asks of a disk. The engine owns it and
// Data until the driver hands it back with Err set.
type Task struct {
	Target Target
	Op     Op   // Read, Write, WriteZeroes, Trim, Flush or Cache
	Punch  bool // WriteZeroes and Trim: the space may be given back
	Drop   bool // Read and Write: bulk data, forget its pages afterwards
	Offset int64
	Length int64
	Data   []byte // Read and Write
	Err    error  // the outcome
	Zeroes bool   // outcome of a Read with Drop: all of it is a hole, and Data was not filled
	Engine any    // the engine's own
}
