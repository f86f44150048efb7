// SPDX-License-Identifier: Apache-2.0

package block

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

// The ways in which Open refuses a disk that is there.
var (
	ErrInUse    = errors.New("in use")    // by another process, a mount, or the kernel
	ErrTooSmall = errors.New("too small") // for what was asked
)

// OpenOptions says what is wanted of a disk.
type OpenOptions struct {
	// MinSize is the number of bytes that the disk must have; 0 takes any.
	MinSize int64

	// ReadOnly opens a disk to look at it: every change fails. Several may look
	// at a file at once, but not while somebody has it open for writing.
	ReadOnly bool
}

// Open opens an existing regular file, or on Linux a block device, for nobody
// else: a file is locked, a device opened exclusively. What is locked, mounted
// or otherwise in use is refused with ErrInUse, and the error names by whom. The
// lock ends with Close or with the process.
//
// The disk that Open returns also implements Vectored, TryReader, Mapper,
// Advisor, FastZeroer and Identifier.
func Open(path string, opts OpenOptions) (Disk, error) {
	d, err := openDisk(path, opts.ReadOnly)
	if err != nil {
		return nil, explainOpen(path, err)
	}
	if size := d.Size(); size < opts.MinSize {
		_ = d.Close() // nothing was written
		return nil, &hintError{
			fmt.Errorf("disk %s: %w: it has %s, %s are needed", path, ErrTooSmall, bytesText(size), bytesText(opts.MinSize)),
			"make the volume smaller, or the disk larger",
		}
	}
	return d, nil
}

// explainOpen adds the path and, to the usual errors, the remedy.
func explainOpen(path string, err error) error {
	var known *hintError
	wrapped := fmt.Errorf("disk %s: %w", path, err)
	switch {
	case errors.As(err, &known):
		return &hintError{fmt.Errorf("disk %s: %w", path, known.err), known.hint}
	case errors.Is(err, fs.ErrNotExist):
		return &hintError{wrapped, "make it with `twinbd create`, or correct the path"}
	case errors.Is(err, fs.ErrPermission):
		return &hintError{wrapped, "run as a user who may write it, such as root"}
	case errors.Is(err, syscall.EROFS):
		return &hintError{wrapped, "choose a place that can be written"}
	}
	return wrapped
}

// hintError is an error that a user can remedy. It reads as one line, and the
// hint is also there by itself for those who print it apart.
type hintError struct {
	err  error
	hint string
}

func (e *hintError) Error() string { return e.err.Error() + "; hint: " + e.hint }
func (e *hintError) Unwrap() error { return e.err }

// Hint is the remedy, without the error.
func (e *hintError) Hint() string { return e.hint }

// StatusOf is the outcome that an error of a disk means to a client: the
// Status that it wraps, else the one for the system error that it wraps, else
// IOError. nil is OK.
func StatusOf(err error) Status {
	if err == nil {
		return OK
	}
	if s, ok := errors.AsType[Status](err); ok {
		return s
	}
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), isDiskFull(err):
		return NoSpace
	case errors.Is(err, syscall.ENOMEM):
		return NoMemory
	}
	return IOError
}

// bytesText is a number of bytes for a human, never rounded up: what is said to
// be free is free.
func bytesText(n int64) string {
	const units = "KMGTP"
	if n < 1<<10 {
		return fmt.Sprintf("%d bytes", n)
	}
	unit := 0
	for unit < len(units)-1 && n>>(10*(unit+2)) > 0 {
		unit++
	}
	whole := int64(1) << (10 * (unit + 1))
	if tenths := n % whole * 10 / whole; tenths > 0 {
		return fmt.Sprintf("%d.%d %ciB", n/whole, tenths, units[unit])
	}
	return fmt.Sprintf("%d %ciB", n/whole, units[unit])
}
