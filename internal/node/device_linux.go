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
	return flush(ctx, path, (*os.File).Sync)
}

// flushFileSystem writes what the kernel's cache holds of the files below a mount
// point.
func flushFileSystem(ctx context.Context, at string) error {
	return flush(ctx, at, func(f *os.File) error { return os.NewSyscallError("syncfs", unix.Syncfs(int(f.Fd()))) })
}

// flush may hang with the device, and is left behind then: the disconnecting ends
// it.
func flush(ctx context.Context, path string, sync func(*os.File) error) error {
	done := make(chan error, 1)
	go func() {
		f, err := os.Open(path)
		switch {
		case errors.Is(err, fs.ErrNotExist): // nobody has used it
			err = nil
		case err == nil:
			err = sync(f)
			f.Close()
		}
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("flush %s: %w", path, err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("flush %s: %w", path, context.Cause(ctx))
	}
}
