// SPDX-License-Identifier: Apache-2.0

package block

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// smallZero is the length in bytes up to which a range that keeps its space is
// zeroed by writing: it costs less than a change of the file's extents, and
// leaves them whole.
const smallZero = 64 << 10

// Zero implements Disk. fallocate has the same meaning for files and for block
// devices: PUNCH_HOLE gives the space back, ZERO_RANGE keeps it, both only where
// zeroes are guaranteed to be read afterwards. That is why no device is ever
// sent a plain discard (BLKDISCARD), after which it may read as it likes.
func (d *fileDisk) Zero(offset, length int64, punch bool) error {
	if err := checkRange(d.size, offset, length); err != nil {
		return err
	}
	if !punch && length <= smallZero {
		return writeZeroes(d, offset, length)
	}
	start, end := offset, offset+length
	if d.device {
		// A device is asked for whole pages only, and knows no smaller sector.
		start, end = (start+Size-1)&^(Size-1), end&^(Size-1)
		if start >= end {
			return writeZeroes(d, offset, length)
		}
	}
	if err := d.zeroRange(start, end-start, punch); err != nil {
		return err
	}
	if err := writeZeroes(d, offset, start-offset); err != nil {
		return err
	}
	return writeZeroes(d, end, offset+length-end)
}

// zeroRange takes the best way that the store has.
func (d *fileDisk) zeroRange(offset, length int64, punch bool) error {
	if punch {
		done, err := d.fallocate(unix.FALLOC_FL_PUNCH_HOLE, &d.noPunch, offset, length)
		if done || err != nil {
			return err
		}
	}
	done, err := d.fallocate(unix.FALLOC_FL_ZERO_RANGE, &d.noZeroRange, offset, length)
	if done || err != nil {
		return err
	}
	return writeZeroes(d, offset, length)
}

// fallocate returns false without an error where the store cannot do it, and
// remembers that.
func (d *fileDisk) fallocate(mode uint32, cannot *atomic.Bool, offset, length int64) (done bool, err error) {
	for length > 0 && !cannot.Load() {
		switch err := unix.Fallocate(d.fd, mode|unix.FALLOC_FL_KEEP_SIZE, offset, length); err {
		case nil:
			return true, nil
		case unix.EINTR:
		case unix.EOPNOTSUPP, unix.ENOSYS:
			cannot.Store(true)
		default:
			return false, ioError("zero", d.path, offset, int(length), err)
		}
	}
	return length == 0, nil
}

// FastZero implements FastZeroer. For a file it is a hope until the first Zero
// has shown what the file system can do.
func (d *fileDisk) FastZero() bool {
	return d.neverWaits || !d.slowZero && !d.noZeroRange.Load()
}
