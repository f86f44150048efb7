// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package nbd

import (
	"errors"
	"fmt"
	"os"
	"runtime"
)

var errNoDevices = fmt.Errorf("/dev/nbdN is the Linux kernel's: there is none on %s: %w; hint: leave `device` out and use the NBD export", runtime.GOOS, errors.ErrUnsupported)

// OpenKernel says that this system has no such driver.
func OpenKernel() (Driver, error) { return nil, errNoDevices }

// SocketPair says that nobody here could take the other end.
func SocketPair() (kernel, ours *os.File, err error) { return nil, nil, errNoDevices }

func makeNode(string, uint32, uint32) error { return errNoDevices }
