// SPDX-License-Identifier: Apache-2.0

package application

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Device is a block device, as what processes use.
type Device string

// MountedAt returns a place where the device is mounted, or "".
func (d Device) MountedAt() (string, error) {
	m, _, err := mountedFrom(string(d))
	return m.at, err
}

// Users names the processes that have the device itself open, not a file of
// what is mounted from it. What cannot be looked at is left out.
func (d Device) Users() string {
	o, err := newOpeners(string(d))
	if err != nil {
		return ""
	}
	found, _ := o.processes() // told to a human
	return list(found)
}

// Kill ends those processes.
func (d Device) Kill(ctx context.Context) error {
	o, err := newOpeners(string(d))
	if err != nil {
		return fmt.Errorf("look for users of %s: %w", string(d), err)
	}
	if err := gone(o, killing, ctx.Done(), o.kill); err != nil {
		return fmt.Errorf("kill users of %s: %w", string(d), err)
	}
	return nil
}

// openers is the herd of those who have a block device open.
type openers struct{ major, minor uint32 }

func newOpeners(path string) (*openers, error) {
	s, err := device(path, unix.AT_STATX_DONT_SYNC)
	if err != nil {
		return nil, err
	}
	if s.Mode&unix.S_IFMT != unix.S_IFBLK {
		return nil, fmt.Errorf("%s is no block device", path)
	}
	return &openers{s.Rdev_major, s.Rdev_minor}, nil
}

func (o *openers) processes() ([]Process, error) {
	all, err := pids()
	if err != nil {
		return nil, err
	}
	var found []Process
	for _, pid := range all {
		if pid != 1 && pid != os.Getpid() && o.has(pid) {
			if p, _, ok := look(pid); ok {
				found = append(found, p)
			}
		}
	}
	return found, nil
}

func (o *openers) has(pid int) bool {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, _ := os.ReadDir(dir) // a process that cannot be looked at counts as one that has it not
	for _, entry := range entries {
		s, err := device(filepath.Join(dir, entry.Name()), 0)
		if err == nil && s.Mode&unix.S_IFMT == unix.S_IFBLK && s.Rdev_major == o.major && s.Rdev_minor == o.minor {
			return true
		}
	}
	return false
}

func (o *openers) kill() error { return signal(o, syscall.SIGKILL) }
