// SPDX-License-Identifier: Apache-2.0

package block

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// fileDisk is a file or a block device behind a bare file descriptor. An
// *os.File would do the same through its poller and locks, which the data path
// pays for and nobody uses: disks are always ready, and Close is the last call.
type fileDisk struct {
	fd     int
	path   string
	size   int64
	device bool // a block device

	// neverWaits: the content is memory (tmpfs), which has no RWF_NOWAIT and
	// needs none.
	neverWaits bool

	// What the store has turned down once is not asked again.
	noTryRead, noPunch, noZeroRange atomic.Bool

	// slowZero: a block device whose driver can but write zeroes.
	slowZero bool

	sync syncState
}

// syncState serialises the Syncs of a disk. The kernel reports a failed
// write-back once per open file, to one of the calls that are then in flight:
// of two at once the other would return success for the data that was lost.
type syncState struct {
	sync.Mutex
	failed error // the first failure; it is every later answer
}

// vectorLimit is how many buffers go into one system call: x/sys/unix builds
// that many I/O vectors without allocating, and eight of 4 KiB are already
// dearer to copy than the call is to make.
const vectorLimit = 8

// Size implements Disk.
func (d *fileDisk) Size() int64 { return d.size }

// ReadAt implements Disk.
func (d *fileDisk) ReadAt(p []byte, offset int64) error {
	if err := checkRange(d.size, offset, int64(len(p))); err != nil {
		return err
	}
	for len(p) > 0 {
		n, err := unix.Pread(d.fd, p, offset)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return ioError("read", d.path, offset, len(p), err)
		case n == 0:
			return ioError("read", d.path, offset, len(p), io.EOF)
		}
		p = p[n:]
		offset += int64(n)
	}
	return nil
}

// TryReadAt implements TryReader: it succeeds when the page cache has it all.
func (d *fileDisk) TryReadAt(p []byte, offset int64) error {
	if d.neverWaits {
		return d.ReadAt(p, offset)
	}
	if err := checkRange(d.size, offset, int64(len(p))); err != nil {
		return err
	}
	if d.noTryRead.Load() {
		return ErrWouldBlock
	}
	n, err := unix.Preadv2(d.fd, [][]byte{p}, offset, unix.RWF_NOWAIT)
	if err == nil && n == len(p) {
		return nil
	}
	if err == unix.EOPNOTSUPP || err == unix.ENOSYS {
		d.noTryRead.Store(true)
	}
	return ErrWouldBlock // what else there is to say, the blocking read says
}

// WriteAt implements Disk.
func (d *fileDisk) WriteAt(p []byte, offset int64) error {
	if err := checkRange(d.size, offset, int64(len(p))); err != nil {
		return err
	}
	for len(p) > 0 {
		n, err := unix.Pwrite(d.fd, p, offset)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return ioError("write", d.path, offset, len(p), err)
		case n == 0:
			return ioError("write", d.path, offset, len(p), io.ErrShortWrite)
		}
		p = p[n:]
		offset += int64(n)
	}
	return nil
}

// WriteVectorAt implements Vectored.
func (d *fileDisk) WriteVectorAt(buffers [][]byte, offset int64) error {
	if err := checkRange(d.size, offset, vectorLength(buffers)); err != nil {
		return err
	}
	for len(buffers) > 0 {
		group := buffers[:min(len(buffers), vectorLimit)]
		n, err := unix.Pwritev(d.fd, group, offset)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return ioError("write", d.path, offset, int(vectorLength(group)), err)
		case n == 0 && vectorLength(group) > 0:
			return ioError("write", d.path, offset, int(vectorLength(group)), io.ErrShortWrite)
		}
		offset += int64(n)
		for len(buffers) > 0 && n >= len(buffers[0]) {
			n -= len(buffers[0])
			buffers = buffers[1:]
		}
		if n > 0 { // it ended within a buffer, whose rest goes by itself
			if err := d.WriteAt(buffers[0][n:], offset); err != nil {
				return err
			}
			offset += int64(len(buffers[0]) - n)
			buffers = buffers[1:]
		}
	}
	return nil
}

// Sync implements Disk. Once it has failed it fails for ever (rule 8): the
// kernel drops what it could not write, and a second fdatasync would succeed.
func (d *fileDisk) Sync() error {
	d.sync.Lock()
	defer d.sync.Unlock()
	if d.sync.failed != nil {
		return d.sync.failed
	}
	for {
		err := unix.Fdatasync(d.fd)
		switch err {
		case nil:
			return nil
		case unix.EINTR:
			continue
		}
		d.sync.failed = fmt.Errorf("sync %s: %w", d.path, err)
		return d.sync.failed
	}
}

// NextData implements Mapper. A block device has no holes, nor has a file on a
// file system that does not say.
func (d *fileDisk) NextData(offset int64) (start, end int64, err error) {
	start, err = d.firstData(offset)
	if err != nil || d.device || start == d.size {
		return start, d.size, err
	}
	end, err = unix.Seek(d.fd, start, unix.SEEK_HOLE)
	switch err {
	case nil:
		return start, min(end, d.size), nil
	case unix.EINVAL, unix.EOPNOTSUPP:
		return start, d.size, nil
	}
	return 0, 0, ioError("map", d.path, start, 0, err)
}

// firstData implements dataFinder.
func (d *fileDisk) firstData(offset int64) (int64, error) {
	if err := checkRange(d.size, offset, 0); err != nil {
		return 0, err
	}
	if d.device || offset == d.size {
		return offset, nil
	}
	start, err := unix.Seek(d.fd, offset, unix.SEEK_DATA)
	switch err {
	case nil:
		return min(start, d.size), nil
	case unix.ENXIO:
		return d.size, nil
	case unix.EINVAL, unix.EOPNOTSUPP:
		return offset, nil
	}
	return 0, ioError("map", d.path, offset, 0, err)
}

// WillNeed implements Advisor.
func (d *fileDisk) WillNeed(offset, length int64) { d.advise(offset, length, unix.FADV_WILLNEED) }

// Drop implements Advisor.
func (d *fileDisk) Drop(offset, length int64) { d.advise(offset, length, unix.FADV_DONTNEED) }

func (d *fileDisk) advise(offset, length int64, advice int) {
	if length > 0 { // 0 would mean to the end
		_ = unix.Fadvise(d.fd, offset, length, advice)
	}
}

// StartWriteback implements Advisor. It only starts: with the flags that wait,
// the call would swallow a write error that the next Sync has to report.
func (d *fileDisk) StartWriteback(offset, length int64) {
	if length > 0 {
		_ = unix.SyncFileRange(d.fd, offset, length, unix.SYNC_FILE_RANGE_WRITE)
	}
}

// Close implements Disk.
func (d *fileDisk) Close() error {
	if err := unix.Close(d.fd); err != nil && err != unix.EINTR { // after EINTR it is closed
		return fmt.Errorf("close %s: %w", d.path, err)
	}
	return nil
}

// ID implements Identifier.
func (d *fileDisk) ID() (string, error) {
	if d.device {
		return deviceID(d.fd, d.size)
	}
	return fileID(d.fd)
}

// freeSpace is the number of bytes that this user may still take in dir.
func freeSpace(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

// preallocate gives a new file its size, and its space in unwritten extents.
func preallocate(f *os.File, size int64) error {
	for {
		switch err := unix.Fallocate(int(f.Fd()), 0, 0, size); err {
		case unix.EINTR:
		case unix.EOPNOTSUPP, unix.ENOSYS:
			return errNoAllocation
		default:
			return err
		}
	}
}

// syncDirectory makes the names in a directory durable.
func syncDirectory(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// isDiskFull: StatusOf knows the errors of this system.
func isDiskFull(error) bool { return false }
