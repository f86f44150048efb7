// SPDX-License-Identifier: Apache-2.0

//go:build unix

package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// hangups hears of every SIGHUP until ctx ends.
func hangups(ctx context.Context) <-chan os.Signal {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGHUP)
	context.AfterFunc(ctx, func() { signal.Stop(asked) })
	return asked
}

// takeDescriptor makes an inherited descriptor a file that no child inherits.
func takeDescriptor(fd int) (*os.File, error) {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", fd, err)
	}
	return os.NewFile(uintptr(fd), "nbd"), nil
}

// become executes the program in place of this one, which then has these
// descriptors. It returns only an error.
func become(program string, environment []string, descriptors []int) error {
	signal.Ignore(syscall.SIGHUP) // which would end a program that does not listen yet
	syscall.ForkLock.Lock()       // no child is to have the descriptors
	defer syscall.ForkLock.Unlock()
	for _, fd := range descriptors {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return fmt.Errorf("hand on descriptor %d: %w", fd, err)
		}
	}
	return fmt.Errorf("execute %s: %w", program, syscall.Exec(program, os.Args, environment))
}
