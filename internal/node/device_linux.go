// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// flushDevice writes what the kernel's cache holds of a device.
func flushDevice(ctx context.Context, path string) error {
	return visit(ctx, "flush", path, (*os.File).Sync)
}

// flushFileSystem writes what the kernel's cache holds of the files below a mount
// point.
func flushFileSystem(ctx context.Context, at string) error {
	return visit(ctx, "flush", at, func(f *os.File) error { return os.NewSyscallError("syncfs", unix.Syncfs(int(f.Fd()))) })
}

// findPartitions has the kernel read the partition table of a device: it does when the
// device is opened for the first time, and where no udev runs nobody opens it.
func findPartitions(ctx context.Context, path string) error {
	return visit(ctx, "look for partitions of", path, func(*os.File) error { return nil })
}

// visit does something with a file that it opens. It may hang with the device, and is
// left behind then: the disconnecting ends it.
func visit(ctx context.Context, what, path string, do func(*os.File) error) error {
	done := make(chan error, 1)
	go func() {
		f, err := os.Open(path)
		switch {
		case errors.Is(err, fs.ErrNotExist): // nobody has used it
			err = nil
		case err == nil:
			err = do(f)
			f.Close()
		}
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("%s %s: %w", what, path, err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s %s: %w", what, path, context.Cause(ctx))
	}
}

// unread is how much of what was sent through a local socket its other side has not
// read: in bytes, with what the kernel needs to keep them; 0 where that is not known.
func unread(f *os.File) (bytes int) {
	raw, err := f.SyscallConn()
	if err == nil {
		// Not by Fd, which would make the loop's duplicate wait.
		err = raw.Control(func(fd uintptr) { bytes, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	}
	if err != nil {
		return 0
	}
	return bytes
}
