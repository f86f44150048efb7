// SPDX-License-Identifier: Apache-2.0

package application

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// herd is a set of processes that belong together, though they fork.
type herd interface {
	// processes are those that live now; none is no error.
	processes() ([]Process, error)

	// has reports whether a process is one of them now.
	has(pid int) bool

	// kill sends SIGKILL to those that it finds; others may have been made
	// meanwhile.
	kill() error
}

// herds is several ways to find the processes of one command, each of which
// may find some that the others do not.
type herds []herd

func (hs herds) processes() ([]Process, error) {
	var all []Process
	var failed failures
	seen := make(map[int]bool)
	for _, h := range hs {
		found, err := h.processes()
		if err != nil {
			failed = append(failed, err)
		}
		for _, p := range found {
			if !seen[p.Pid] {
				seen[p.Pid] = true
				all = append(all, p)
			}
		}
	}
	return all, failed.err()
}

func (hs herds) has(pid int) bool {
	return slices.ContainsFunc(hs, func(h herd) bool { return h.has(pid) })
}

func (hs herds) kill() error {
	var failed failures
	for _, h := range hs {
		if err := h.kill(); err != nil {
			failed = append(failed, err)
		}
	}
	return failed.err()
}

// signal reaches each process once.
func signal(h herd, s syscall.Signal) error {
	processes, err := h.processes()
	if err != nil {
		return err
	}
	var failed failures
	for _, p := range processes {
		if err := signalIf(p.Pid, s, h.has); err != nil {
			failed = append(failed, err)
		}
	}
	return failed.err()
}

// end asks the processes to end, gives them time, kills those that are left,
// and returns when all are gone: an error says which are not. hurry cuts the
// time short.
func end(h herd, grace time.Duration, hurry <-chan struct{}) error {
	// Whom the signal does not reach is killed: its error changes nothing.
	_ = signal(h, syscall.SIGTERM)
	if gone(h, grace, hurry, func() error { return nil }) == nil {
		return nil
	}
	return kill(h)
}

// kill returns when all processes are gone; an error says which are not. It
// kills again at every look: a process may have forked between look and kill.
func kill(h herd) error { return gone(h, hopeless, nil, h.kill) }

// gone looks until two looks in a row find nothing: a process that is just
// executing another program can be missed by one.
func gone(h herd, limit time.Duration, hurry <-chan struct{}, act func() error) error {
	over := time.NewTimer(limit)
	defer over.Stop()
	pause := time.Millisecond
	for clean := 0; ; {
		left, err := h.processes()
		if err != nil {
			return fmt.Errorf("look for processes: %w", err)
		}
		if clean++; len(left) > 0 {
			clean = 0
			if err := act(); err != nil {
				return fmt.Errorf("kill processes: %w", err)
			}
		}
		if clean == 2 {
			return nil
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, 20*time.Millisecond)
		case <-over.C:
			return undead(left)
		case <-hurry:
			hurry = nil
			over.Reset(0)
		}
	}
}

func undead(left []Process) error {
	if len(left) == 0 {
		return nil
	}
	return undeadError(left)
}

// look reads what proc(5) says of a process; false: it is gone, or a zombie.
func look(pid int) (p Process, session int, ok bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return p, 0, false
	}
	open, shut := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')') // the name may hold either
	if open < 0 || shut < open {
		return p, 0, false
	}
	fields := bytes.Fields(text[shut+1:]) // state, parent, process group, session, …
	if len(fields) < 4 {
		return p, 0, false
	}
	p = Process{pid, string(text[open+1 : shut]), string(fields[0])}
	session, err = strconv.Atoi(string(fields[3]))
	return p, session, err == nil && p.State != "Z" && p.State != "X"
}

// pids are all processes of the machine that this one can see.
func pids() ([]int, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var found []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			found = append(found, pid)
		}
	}
	return found, nil
}

// signalIf signals a process that still is what it was taken for: the handle is
// opened before belongs looks, so that a reused number is never hit.
func signalIf(pid int, s syscall.Signal, belongs func(pid int) bool) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return fmt.Errorf("open process %d: %w", pid, err)
	}
	defer p.Release()
	if !belongs(pid) {
		return nil
	}
	if err := p.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal process %d: %w", pid, err)
	}
	return nil
}
