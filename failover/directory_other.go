// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package failover

import "os"

func syncFile(f *os.File) error { return f.Sync() }
