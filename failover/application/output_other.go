// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package application

import "os"

// Pipes returns nothing: no command is run here.
func Pipes() []*os.File { return nil }

// ReadOn has nothing to read.
func ReadOn([]*os.File) {}
