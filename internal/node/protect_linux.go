// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	capIPCLock     = 14
	flagFlusher    = 0x00080000 // PF_MEMALLOC_NOIO, as it stands in /proc/PID/stat
	neverKill      = "-1000"    // oom_score_adj
	ownScore       = "/proc/self/oom_score_adj"
	withoutFlusher = "writing dirty pages may wait for this process, which waits for them"
)

// Protect does it for this process, once, early: threads that are made later get
// it from those that are there. It returns what could not be had, each an error
// with a hint.
func Protect() (problems []error) {
	for _, err := range []error{markFlushers(), lockMemory(), keepAlive()} {
		if err != nil {
			problems = append(problems, err)
		}
	}
	return problems
}

// markFlushers marks all threads as such that help to write dirty pages.
func markFlushers() error {
	_, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_IO_FLUSHER, 1, 0, 0, 0, 0)
	switch errno {
	case 0:
	case unix.EPERM:
		return fmt.Errorf("threads are not marked as I/O flushers: %s; hint: run twinbd as root, or give it CAP_SYS_RESOURCE", withoutFlusher)
	case unix.EINVAL:
		return fmt.Errorf("threads are not marked as I/O flushers: %s; hint: Linux 5.6 or newer can", withoutFlusher)
	case unix.ENOTSUP:
		return fmt.Errorf("threads are not marked as I/O flushers: %s; hint: build with CGO_ENABLED=0, as `make build` does", withoutFlusher)
	default:
		return fmt.Errorf("mark threads as I/O flushers: %w", errno)
	}
	total, without, err := flushers()
	if err != nil {
		return fmt.Errorf("verify that threads are I/O flushers: %w", err)
	}
	if without > 0 {
		return fmt.Errorf("%d of %d threads are not marked as I/O flushers: %s", without, total, withoutFlusher)
	}
	return nil
}

// flushers counts the threads of this process, and those without the mark.
func flushers() (total, without int, err error) {
	files, err := filepath.Glob("/proc/self/task/*/stat")
	if err != nil {
		return 0, 0, err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		flags, err := taskFlags(text)
		if err != nil {
			return 0, 0, fmt.Errorf("%s: %w", file, err)
		}
		total++
		if flags&flagFlusher == 0 {
			without++
		}
	}
	if total == 0 {
		return 0, 0, errors.New("no thread is seen in /proc/self/task")
	}
	return total, without, nil
}

// taskFlags reads the ninth field of proc_pid_stat(5). The second is a name in
// parentheses that may hold anything.
func taskFlags(stat []byte) (uint64, error) {
	const after = 6 // of the fields behind the name
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) <= after {
		return 0, errors.New("has too few fields")
	}
	return strconv.ParseUint(string(fields[after]), 10, 64)
}

// lockMemory keeps in memory what the process has touched and will touch. Without
// the capability the kernel would count it against a limit, and the next
// allocation beyond that would end the process: then it is left alone.
func lockMemory() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	have, err := ownCapabilities()
	if err != nil {
		return fmt.Errorf("lock memory: %w", err)
	}
	if have&(1<<capIPCLock) == 0 && limit.Cur != unix.RLIM_INFINITY {
		return errors.New("memory is not locked: a part of this process that was paged out may be missing when pages must be written; hint: run twinbd as root, or give it CAP_IPC_LOCK")
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return fmt.Errorf("lock memory: %w", os.NewSyscallError("mlockall", err))
	}
	return nil
}

// keepAlive makes this process the last that is killed for memory.
func keepAlive() error {
	if err := os.WriteFile(ownScore, []byte(neverKill), 0); err != nil {
		return fmt.Errorf("the out-of-memory killer may take this process: %w; hint: run twinbd as root, or give it CAP_SYS_RESOURCE", err)
	}
	return nil
}
