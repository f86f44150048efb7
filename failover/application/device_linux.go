// SPDX-License-Identifier: Apache-2.0

package application

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// Device is a block device, as what processes use.
type Device string

// MountedAt returns a place where the device, or a partition of it, is mounted, or "".
func (d Device) MountedAt() (string, error) {
	for _, path := range d.parts() {
		if m, mounted, err := mountedFrom(path); mounted || err != nil {
			return m.at, err
		}
	}
	return "", nil
}

// parts are the device as a whole and its partitions, by their paths.
func (d Device) parts() []string {
	paths := []string{string(d)}
	found, _ := filepath.Glob(filepath.Join("/sys/class/block", filepath.Base(resolve(string(d))), "*", "partition"))
	for _, file := range found {
		paths = append(paths, filepath.Join("/dev", filepath.Base(filepath.Dir(file))))
	}
	return paths
}

// Users names the processes that have the device or a partition of it open, not a
// file of what is mounted from it. What cannot be looked at is left out.
func (d Device) Users() string {
	o, err := newOpeners(d)
	if err != nil {
		return ""
	}
	found, _ := o.processes() // told to a human
	return list(found)
}

// Kill ends those processes.
func (d Device) Kill(ctx context.Context) error {
	o, err := newOpeners(d)
	if err != nil {
		return fmt.Errorf("look for users of %s: %w", string(d), err)
	}
	if err := gone(o, killing, ctx.Done(), o.kill); err != nil {
		return fmt.Errorf("kill users of %s: %w", string(d), err)
	}
	return nil
}

// openers is the herd of those who have a block device open, or a partition of it.
type openers struct{ numbers [][2]uint32 } // major, minor

func newOpeners(d Device) (*openers, error) {
	o := &openers{}
	for _, path := range d.parts() {
		s, err := device(path, unix.AT_STATX_DONT_SYNC)
		if err == nil && s.Mode&unix.S_IFMT != unix.S_IFBLK {
			err = fmt.Errorf("%s is no block device", path)
		}
		if err != nil && path == string(d) {
			return nil, err
		}
		if err == nil { // else a partition that has no file, by which it could be open
			o.numbers = append(o.numbers, [2]uint32{s.Rdev_major, s.Rdev_minor})
		}
	}
	return o, nil
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
		if err == nil && s.Mode&unix.S_IFMT == unix.S_IFBLK && slices.Contains(o.numbers, [2]uint32{s.Rdev_major, s.Rdev_minor}) {
			return true
		}
	}
	return false
}

func (o *openers) kill() error { return signal(o, syscall.SIGKILL) }
