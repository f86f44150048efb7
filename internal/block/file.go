// SPDX-License-Identifier: Apache-2.0

package block

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// CreateFile makes a file of size bytes, to be used as a disk, that reads as
// zeroes. Its space is allocated now, so that no later write can find the file
// system full; with thin it is allocated as it is written. The file and its
// name are durable when CreateFile returns nil; otherwise the file is removed
// again. What already exists is never touched.
func CreateFile(path string, size int64, thin bool) error {
	if err := createFile(path, size, thin); err != nil {
		return explainCreate(path, size, err)
	}
	return nil
}

func createFile(path string, size int64, thin bool) (err error) {
	if size <= 0 {
		return fmt.Errorf("a size of %d bytes: %w", size, Invalid)
	}
	dir := filepath.Dir(path)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			err = errors.Join(err, os.Remove(path))
		}
	}()

	if thin {
		err = f.Truncate(size)
	} else {
		err = allocate(f, dir, size)
	}
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return syncDirectory(dir)
}

// allocate gives a new file its size and its space. It asks first, since an
// attempt that must fail would fill the file system for everybody meanwhile.
func allocate(f *os.File, dir string, size int64) error {
	if free, err := freeSpace(dir); err == nil && free < size {
		return errDiskFull
	}
	return preallocate(f, size)
}

// errDiskFull says that there is too little room, before the system says so.
var errDiskFull = fmt.Errorf("file system is full: %w", NoSpace)

// explainCreate adds the path and, to the usual errors, the remedy.
func explainCreate(path string, size int64, err error) error {
	dir := filepath.Dir(path)
	switch {
	case StatusOf(err) == NoSpace:
		need := fmt.Errorf("create %s: needs %s: %w", path, bytesText(size), NoSpace)
		if free, statErr := freeSpace(dir); statErr == nil {
			need = fmt.Errorf("create %s: needs %s, %s are free on %s: %w", path, bytesText(size), bytesText(free), dir, NoSpace)
		}
		return &hintError{need, "make room, choose another place, or set thin = true, and it grows as it is written"}
	case errors.Is(err, errNoAllocation):
		return &hintError{fmt.Errorf("create %s: %w", path, err), "choose another place, or set thin = true, and it grows as it is written"}
	case errors.Is(err, fs.ErrExist):
		return &hintError{fmt.Errorf("create %s: it exists already", path), "use it as it is, choose another path, or remove it yourself"}
	case errors.Is(err, fs.ErrNotExist):
		return &hintError{fmt.Errorf("create %s: there is no directory %s", path, dir), "make the directory, or correct the path"}
	case errors.Is(err, syscall.EFBIG):
		return &hintError{fmt.Errorf("create %s: %s are more than this file system allows in a file", path, bytesText(size)), "choose a smaller size, another file system, or a block device"}
	case errors.Is(err, fs.ErrPermission):
		return &hintError{fmt.Errorf("create %s: %w", path, err), "run as a user who may write there, such as root"}
	}
	return fmt.Errorf("create %s: %w", path, err)
}

// errNoAllocation says that a file system has no means to reserve space.
var errNoAllocation = errors.New("this file system cannot reserve space")

// checkRange refuses what does not lie within a disk of size bytes.
func checkRange(size, offset, length int64) error {
	if offset < 0 || length < 0 || offset > size-length {
		return fmt.Errorf("%d bytes at %d of a disk of %d: %w", length, offset, size, Invalid)
	}
	return nil
}

func vectorLength(buffers [][]byte) (n int64) {
	for _, p := range buffers {
		n += int64(len(p))
	}
	return n
}

// zeroes is what is written where a store has no better way. Nobody changes it.
var zeroes [1 << 20]byte

// writeZeroes zeroes a range the plain way.
func writeZeroes(w Disk, offset, length int64) error {
	for length > 0 {
		n := min(length, int64(len(zeroes)))
		if err := w.WriteAt(zeroes[:n], offset); err != nil {
			return err
		}
		offset += n
		length -= n
	}
	return nil
}

// ioError names the step and the place of an error of a disk.
func ioError(step, path string, offset int64, length int, err error) error {
	if err == io.EOF {
		err = fmt.Errorf("it was cut short by somebody else: %w", io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("%s %d bytes at %d of %s: %w", step, length, offset, path, err)
}
