// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package main

import "os"

// isTerminal, where only the kind of file is asked: a null device counts too,
// and then reads nothing, which confirms nothing.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
