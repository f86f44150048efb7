// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package block

import (
	"fmt"
	"os"
	"sync"
)

// fileDisk is a file, on systems other than Linux.
type fileDisk struct {
	file *os.File
	path string
	size int64
	sync syncState
}

// syncState serialises the Syncs of a disk, so that none can succeed beside one
// that fails.
type syncState struct {
	sync.Mutex
	failed error // the first failure; it is every later answer
}

func openDisk(path string, readOnly bool) (*fileDisk, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errNoDevices
	}
	flags := os.O_RDWR
	if readOnly {
		flags = os.O_RDONLY
	}
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return nil, err
	}
	if err := lockFile(f, readOnly); err != nil {
		_ = f.Close()
		return nil, err
	}
	if info, err = f.Stat(); err != nil {
		_ = f.Close()
		return nil, err
	}
	return &fileDisk{file: f, path: path, size: info.Size()}, nil
}

// errLocked is the refusal of a file that somebody has open.
var errLocked = &hintError{fmt.Errorf("%w by another process", ErrInUse), "stop it first, or choose another disk"}

// Size implements Disk.
func (d *fileDisk) Size() int64 { return d.size }

// ReadAt implements Disk.
func (d *fileDisk) ReadAt(p []byte, offset int64) error {
	if err := checkRange(d.size, offset, int64(len(p))); err != nil {
		return err
	}
	if n, err := d.file.ReadAt(p, offset); n < len(p) {
		return ioError("read", d.path, offset, len(p), err)
	}
	return nil
}

// TryReadAt implements TryReader. Nothing is known here of what is in memory.
func (d *fileDisk) TryReadAt(p []byte, offset int64) error {
	if err := checkRange(d.size, offset, int64(len(p))); err != nil {
		return err
	}
	return ErrWouldBlock
}

// WriteAt implements Disk.
func (d *fileDisk) WriteAt(p []byte, offset int64) error {
	if err := checkRange(d.size, offset, int64(len(p))); err != nil {
		return err
	}
	if _, err := d.file.WriteAt(p, offset); err != nil {
		return ioError("write", d.path, offset, len(p), err)
	}
	return nil
}

// WriteVectorAt implements Vectored.
func (d *fileDisk) WriteVectorAt(buffers [][]byte, offset int64) error {
	if err := checkRange(d.size, offset, vectorLength(buffers)); err != nil {
		return err
	}
	for _, p := range buffers {
		if err := d.WriteAt(p, offset); err != nil {
			return err
		}
		offset += int64(len(p))
	}
	return nil
}

// Zero implements Disk, by writing: the space stays allocated.
func (d *fileDisk) Zero(offset, length int64, _ bool) error {
	if err := checkRange(d.size, offset, length); err != nil {
		return err
	}
	return writeZeroes(d, offset, length)
}

// FastZero implements FastZeroer.
func (d *fileDisk) FastZero() bool { return false }

// Sync implements Disk. Once it has failed it fails for ever (rule 8).
func (d *fileDisk) Sync() error {
	d.sync.Lock()
	defer d.sync.Unlock()
	if d.sync.failed == nil {
		if err := d.file.Sync(); err != nil {
			d.sync.failed = fmt.Errorf("sync %s: %w", d.path, err)
		}
	}
	return d.sync.failed
}

// NextData implements Mapper: everything is data.
func (d *fileDisk) NextData(offset int64) (start, end int64, err error) {
	if err := checkRange(d.size, offset, 0); err != nil {
		return 0, 0, err
	}
	return offset, d.size, nil
}

// WillNeed implements Advisor; no advice is taken here.
func (d *fileDisk) WillNeed(int64, int64) {}

// Drop implements Advisor.
func (d *fileDisk) Drop(int64, int64) {}

// StartWriteback implements Advisor.
func (d *fileDisk) StartWriteback(int64, int64) {}

// Close implements Disk.
func (d *fileDisk) Close() error {
	if err := d.file.Close(); err != nil {
		return fmt.Errorf("close %s: %w", d.path, err)
	}
	return nil
}

// ID implements Identifier.
func (d *fileDisk) ID() (string, error) { return fileID(d.file) }
