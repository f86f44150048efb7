// SPDX-License-Identifier: Apache-2.0

package application

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// startChild starts a command as any process is: without what a daemon that
// serves a block device gives itself against running out of memory. A child
// inherits the I/O flusher's mark from the thread that makes it; so that thread
// has none for the moment. The score is the whole process's, and is set back when
// the child is there.
func startChild(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// Without the right to ask there cannot be a mark.
	if marked, err := unix.PrctlRetInt(unix.PR_GET_IO_FLUSHER, 0, 0, 0, 0); err == nil && marked == 1 {
		if err := setFlusher(0); err != nil {
			return err
		}
		defer setFlusher(1) // what could be taken off can be put on
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	if score, err := os.ReadFile("/proc/self/oom_score_adj"); err == nil && strings.HasPrefix(string(score), "-") {
		// It fails only when the child has ended.
		_ = os.WriteFile("/proc/"+strconv.Itoa(cmd.Process.Pid)+"/oom_score_adj", []byte("0"), 0)
	}
	return nil
}

func setFlusher(on uintptr) error {
	if err := unix.Prctl(unix.PR_SET_IO_FLUSHER, on, 0, 0, 0); err != nil {
		return fmt.Errorf("set the mark of an I/O flusher: %w", os.NewSyscallError("prctl", err))
	}
	return nil
}
