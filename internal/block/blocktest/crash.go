// SPDX-License-Identifier: Apache-2.0

package blocktest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/twinbd/twinbd/internal/block"
)

// SectorSize is the number of bytes that a CrashDisk writes all or not at all.
const SectorSize = 512

// What calls of a CrashDisk return when their time is over.
var (
	ErrPowerCut = fmt.Errorf("power was cut during the call: %w", block.IOError)
	ErrClosed   = errors.New("disk is closed")
)

// CrashDisk is a disk in memory with a volatile write cache.
//
// What is written is read back at once, but is durable only after a Sync that
// succeeded. PowerCut keeps of the rest what chance allows: sector by sector,
// so that a write is torn, and in no order, so that a later write may survive
// an earlier one. After a Sync that failed, what it should have written is
// still read back, but no later Sync makes it durable, as with the page cache
// of Linux: a caller that retries a Sync and believes it is found out by the
// next PowerCut.
//
// Calls may overlap. A call that is held in a Gate while the power is cut has
// no effect and returns ErrPowerCut.
type CrashDisk struct {
	Name string // what ID returns; set it before the disk is shared

	mu      sync.Mutex
	current []byte              // what reads return
	durable []byte              // what a power cut cannot take
	cache   map[int64][]version // what is not durable: by sector, oldest first
	bad     map[int64]struct{}  // sectors that cannot be read until they are written
	faults  []*Fault
	counts  Counts
	changes uint64 // writes and zeroes so far
	suspect bool   // a Sync has failed since the last power cut
	cuts    int    // power cuts so far
	closed  bool
}

// version is what a sector held between two changes.
type version struct {
	content []byte
	change  uint64 // which change made it
	doomed  bool   // a Sync that should have written it has failed
}

// NewCrashDisk returns a disk of size bytes that reads as zeroes.
func NewCrashDisk(size int64) *CrashDisk {
	return &CrashDisk{
		Name:    "crash-disk",
		current: make([]byte, size),
		durable: make([]byte, size),
		cache:   make(map[int64][]version),
		bad:     make(map[int64]struct{}),
	}
}

// ID implements block.Identifier.
func (d *CrashDisk) ID() (string, error) { return d.Name, nil }

// Size implements block.Disk.
func (d *CrashDisk) Size() int64 { return int64(len(d.current)) }

// ReadAt implements block.Disk.
func (d *CrashDisk) ReadAt(p []byte, offset int64) error { return d.read(p, offset, false) }

// TryReadAt implements block.TryReader. It blocks only in a Gate; a Fault with
// block.ErrWouldBlock makes a range cold.
func (d *CrashDisk) TryReadAt(p []byte, offset int64) error { return d.read(p, offset, true) }

func (d *CrashDisk) read(p []byte, offset int64, try bool) error {
	call := Call{Op: block.Read, Offset: offset, Length: int64(len(p)), Try: try}
	return d.do(call, func(c Call) error {
		for s := offset / SectorSize; s*SectorSize < offset+c.Length; s++ {
			if _, bad := d.bad[s]; bad {
				return fmt.Errorf("read sector %d: %w", s, block.IOError)
			}
		}
		copy(p, d.current[offset:])
		return nil
	})
}

// WriteAt implements block.Disk.
func (d *CrashDisk) WriteAt(p []byte, offset int64) error {
	call := Call{Op: block.Write, Offset: offset, Length: int64(len(p))}
	return d.do(call, func(c Call) error {
		copy(d.current[offset:offset+c.Length], p)
		d.changed(offset, c.Length)
		return nil
	})
}

// WriteVectorAt implements block.Vectored. It counts as one write.
func (d *CrashDisk) WriteVectorAt(buffers [][]byte, offset int64) error {
	return d.WriteAt(slices.Concat(buffers...), offset)
}

// Zero implements block.Disk. To a Fault it is a Trim with punch and a
// WriteZeroes without.
func (d *CrashDisk) Zero(offset, length int64, punch bool) error {
	call := Call{Op: block.WriteZeroes, Offset: offset, Length: length}
	if punch {
		call.Op = block.Trim
	}
	return d.do(call, func(c Call) error {
		clear(d.current[offset : offset+c.Length])
		d.changed(offset, c.Length)
		return nil
	})
}

// Sync implements block.Disk. What is written while it is held in a Gate stays
// volatile.
func (d *CrashDisk) Sync() error {
	return d.do(Call{Op: block.Flush}, func(c Call) error {
		for number, versions := range d.cache {
			last := lastBefore(versions, c.change)
			if last < 0 || versions[last].doomed {
				continue
			}
			copy(d.durable[number*SectorSize:], versions[last].content)
			if versions = versions[last+1:]; len(versions) > 0 {
				d.cache[number] = versions
			} else {
				delete(d.cache, number)
			}
		}
		return nil
	})
}

// Close implements block.Disk. Nothing is made durable by it; every later call
// returns ErrClosed until Reopen or PowerCut.
func (d *CrashDisk) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return ErrClosed
	}
	d.closed = true
	return nil
}

// Reopen undoes Close: the process is a new one, the power was never cut.
func (d *CrashDisk) Reopen() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = false
}

// NextData implements block.Mapper: blocks of zeroes are holes.
func (d *CrashDisk) NextData(offset int64) (start, end int64, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.admit(offset, 0); err != nil {
		return 0, 0, err
	}
	start, end = nextData(d.current, offset)
	return start, end, nil
}

// FastZero implements block.FastZeroer.
func (d *CrashDisk) FastZero() bool { return true }

// changed takes the new content of the sectors of a range into the cache.
func (d *CrashDisk) changed(offset, length int64) {
	if length == 0 {
		return
	}
	d.changes++
	first := offset / SectorSize
	end := min((offset+length+SectorSize-1)/SectorSize*SectorSize, d.Size())
	content := bytes.Clone(d.current[first*SectorSize : end])
	for number := first; len(content) > 0; number++ {
		n := min(SectorSize, len(content))
		d.cache[number] = append(d.cache[number], version{content: content[:n:n], change: d.changes})
		delete(d.bad, number)
		content = content[n:]
	}
}

// lastBefore returns the index of the last version that is not newer than a
// change, or -1.
func lastBefore(versions []version, change uint64) int {
	last := len(versions) - 1
	for last >= 0 && versions[last].change > change {
		last--
	}
	return last
}

// admit refuses calls on a closed disk and beyond its end.
func (d *CrashDisk) admit(offset, length int64) error {
	if d.closed {
		return ErrClosed
	}
	return checkRange(d.Size(), offset, length)
}

var (
	_ block.Disk       = (*CrashDisk)(nil)
	_ block.Vectored   = (*CrashDisk)(nil)
	_ block.TryReader  = (*CrashDisk)(nil)
	_ block.Mapper     = (*CrashDisk)(nil)
	_ block.FastZeroer = (*CrashDisk)(nil)
	_ block.Identifier = (*CrashDisk)(nil)

	_ block.Disk       = (*Memory)(nil)
	_ block.Vectored   = (*Memory)(nil)
	_ block.TryReader  = (*Memory)(nil)
	_ block.Mapper     = (*Memory)(nil)
	_ block.FastZeroer = (*Memory)(nil)
	_ block.Identifier = (*Memory)(nil)
)
