// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// flushDevice writes what the kernel's cache holds of a device. It may hang with
// the device, and is left behind then: the disconnecting ends it.
func flushDevice(ctx context.Context, path string) error {
	done := make(chan error, 1)
	go func() {
		f, err := os.Open(path)
		switch {
		case errors.Is(err, fs.ErrNotExist): // nobody has used it
			err = nil
		case err == nil:
			err = f.Sync()
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
