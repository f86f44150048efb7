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

// The stores of a volume.
const (
	Data Target = iota
	Metadata
)

// Allocation appends to out what d knows of a range: data, or holes that read
// as zeroes; at most cap(out) extents, at least one. What is missing at the end
// is for another question.
func Allocation(out []Extent, d Disk, offset, length int64) ([]Extent, error) {
	m, ok := d.(Mapper)
	if !ok || cap(out) == 0 {
		return append(out, Extent{Length: uint32(length)}), nil
	}
	for at, end := offset, offset+length; at < end && len(out) < cap(out); {
		start, stop, err := m.NextData(at)
		if err != nil {
			return out, err
		}
		start, stop = min(start, end), min(stop, end)
		if start > at {
			out = append(out, Extent{Length: uint32(start - at), Flags: ExtentHole | ExtentZero})
			at = start
			continue
		}
		out = append(out, Extent{Length: uint32(stop - at)})
		at = stop
	}
	return out, nil
}

// IsHole reports whether d knows that a whole range is a hole.
func IsHole(d Disk, offset, length int64) bool {
	m, ok := d.(Mapper)
	if !ok {
		return false
	}
	start, err := firstData(m, offset)
	return err == nil && start >= offset+length
}

// dataFinder is a Mapper that finds the start of NextData's range without the
// end, which can be far away and dear: tmpfs looks at every page up to there.
type dataFinder interface {
	firstData(offset int64) (start int64, err error)
}

func firstData(m Mapper, offset int64) (start int64, err error) {
	if f, ok := m.(dataFinder); ok {
		return f.firstData(offset)
	}
	start, _, err = m.NextData(offset)
	return start, err
}

// Task is one operation that an engine asks of a disk. The engine owns it and
// Data until the driver hands it back with Err set.
type Task struct {
	Target  Target
	Op      Op   // Read, Write, WriteZeroes, Trim, Flush, Cache or BlockStatus
	Punch   bool // WriteZeroes and Trim: the space may be given back
	Drop    bool // Read and Write: bulk data, forget its pages afterwards
	Offset  int64
	Length  int64
	Data    []byte   // Read and Write
	Extents []Extent // BlockStatus: room for the answer, appended to up to its capacity
	Err     error    // the outcome
	Zeroes  bool     // outcome of a Read with Drop: all of it is a hole, and Data was not filled
	Engine  any      // the engine's own
}
