// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package node

import (
	"context"
	"os"
)

// There is no device, and nothing is on it or mounted from it.

func flushDevice(context.Context, string) error     { return nil }
func flushFileSystem(context.Context, string) error { return nil }
func findPartitions(context.Context, string) error  { return nil }
func unread(*os.File) int                           { return 0 }
