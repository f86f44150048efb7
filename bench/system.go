// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// system is what fio measures: an NBD server with all that belongs to it.
type system interface {
	// start makes the disks, starts the servers and waits until they serve.
	// After an error, too, stop must be called.
	start(ctx context.Context) error

	// uri is where fio connects.
	uri() string

	// cpuTime is what all its servers have used so far.
	cpuTime() (time.Duration, error)

	// stop ends every server that was started, the last one first.
	stop() error
}

// auditor is a system that can show, when it has stopped, that it did its work.
type auditor interface {
	audit() error
}

// newSystem makes the named system with disks and work as its directories.
func newSystem(name string, o *options, disks, work string) system {
	base := servers{
		disks: filepath.Join(disks, name),
		work:  filepath.Join(work, name),
		size:  o.size, thin: o.cold, cpu: o.cpu,
	}
	switch name {
	case "twinbd":
		return &pair{servers: base, binary: o.twinbd, tls: o.tls, witness: o.witness}
	case "nbdkit":
		return &nbdkit{servers: base}
	case "quorum":
		return &quorum{servers: base}
	case "yardstick":
		return &yardstick{servers: base, source: o.yardstick}
	}
	panic("bench: no system named " + name)
}

// servers is what all systems have in common.
type servers struct {
	disks, work string // directories of their own
	size        int64
	thin        bool
	cpu         int
	procs       []*process
}

func (s *servers) makeDirs() error {
	return errors.Join(os.MkdirAll(s.disks, 0o700), os.MkdirAll(s.work, 0o700))
}

func (s *servers) socket() string { return filepath.Join(s.work, "nbd.sock") }

func (s *servers) uri() string { return "nbd+unix:///?socket=" + s.socket() }

// spawn starts a server and waits until try succeeds.
func (s *servers) spawn(ctx context.Context, name string, try func() error, argv ...string) error {
	p, err := startProcess(s.work, name, pinned(s.cpu, argv))
	if err != nil {
		return err
	}
	s.procs = append(s.procs, p)
	return p.ready(ctx, try)
}

func (s *servers) cpuTime() (total time.Duration, err error) {
	for _, p := range s.procs {
		used, err := p.cpuTime()
		if err != nil {
			return 0, errors.Join(err, p.dead())
		}
		total += used
	}
	return total, nil
}

func (s *servers) stop() (err error) {
	for _, p := range slices.Backward(s.procs) {
		err = errors.Join(err, p.stop())
	}
	s.procs = nil
	return err
}

// fill makes a disk of the system's size, or fills one that exists, and writes
// it whole by blocks of 4 KiB. That matters: a file that was written in large
// pieces keeps large folios in the page cache, and each small write to it then
// costs up to twenty times more. A thin disk stays as it is made.
func (s *servers) fill(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("make disk: %w", err)
	}
	defer file.Close()
	if s.thin {
		if err := file.Truncate(s.size); err != nil {
			return fmt.Errorf("make thin disk: %w", err)
		}
		return nil
	}
	block := make([]byte, 4<<10)
	for offset := int64(0); offset < s.size; offset += int64(len(block)) {
		if _, err := file.WriteAt(block, offset); err != nil {
			return fmt.Errorf("fill disk: %w; hint: --dir chooses a file system with more room, --size a smaller volume", err)
		}
	}
	// What is dirty now would be written back during the first runs.
	if err := file.Sync(); err != nil {
		return fmt.Errorf("sync disk: %w", err)
	}
	return nil
}
