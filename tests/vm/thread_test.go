// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vm

import (
	"errors"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// thread is one of the system's, which starts processes: the kernel kills them when
// it ends, and it ends with the test, however that ends.
type thread struct{ work chan func() }

// newThread makes a thread, which prepare makes what it is to be.
func newThread(t testing.TB, prepare func() error) *thread {
	t.Helper()
	h := &thread{make(chan func())}
	prepared := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends
		err := prepare()
		prepared <- err
		if err != nil {
			return
		}
		for f := range h.work {
			f()
		}
	}()
	if err := <-prepared; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(h.work) })
	return h
}

// do runs f on the thread.
func (h *thread) do(f func() error) (err error) {
	done := make(chan struct{})
	h.work <- func() {
		defer close(done)
		err = f()
	}
	<-done
	return err
}

// start starts a process that ends with the thread.
func (h *thread) start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return h.do(cmd.Start)
}

// newSpace makes a thread in a network namespace of its own.
func newSpace(t testing.TB) *thread {
	return newThread(t, func() error { return unix.Unshare(unix.CLONE_NEWNET) })
}

// plain is a thread like any other.
func plain() error { return nil }

var errGone = errors.New("the machine is off")
