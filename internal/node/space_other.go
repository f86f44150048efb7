// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package node

import "errors"

func freeSpace(string) (int64, error) { return 0, errors.ErrUnsupported }

// syncDirectory: where a directory cannot be flushed, a rename is as durable as it
// is.
func syncDirectory(string) error { return nil }
