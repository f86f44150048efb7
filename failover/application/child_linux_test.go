// SPDX-License-Identifier: Apache-2.0

package application

import (
	"bytes"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// flusherFlag is PF_MEMALLOC_NOIO in the ninth field of /proc/PID/stat.
const flusherFlag = 0x00080000

// A command gets neither the mark of an I/O flusher nor the daemon's score.
func TestChildIsNotProtected(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := setFlusher(1); err != nil {
		t.Skipf("this process may not mark itself: %v", err)
	}
	defer setFlusher(0)
	was, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-500"), 0); err != nil {
		t.Skipf("this process may not lower its score: %v", err)
	}
	defer os.WriteFile("/proc/self/oom_score_adj", was, 0)

	see := func(start func(*exec.Cmd) error) (flags uint64, score string) {
		t.Helper()
		input, out, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		var seen bytes.Buffer
		cmd := exec.Command("/bin/sh", "-c", "read go; cat /proc/$$/stat /proc/$$/oom_score_adj")
		cmd.Stdin, cmd.Stdout = input, &seen
		if err := start(cmd); err != nil {
			t.Fatal(err)
		}
		input.Close()
		out.WriteString("go\n") // the score has been set
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		stat, rest, _ := bytes.Cut(seen.Bytes(), []byte("\n"))
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if flags, err = strconv.ParseUint(string(fields[6]), 10, 64); err != nil {
			t.Fatal(err)
		}
		return flags, string(bytes.TrimSpace(rest))
	}
	if flags, score := see((*exec.Cmd).Start); flags&flusherFlag == 0 || score != "-500" {
		t.Errorf("nothing is inherited, so this shows nothing: flags %#x, score %s", flags, score)
	}
	if flags, score := see(startChild); flags&flusherFlag != 0 || score != "0" {
		t.Errorf("a command has flags %#x, score %s", flags, score)
	}
	if marked, err := unix.PrctlRetInt(unix.PR_GET_IO_FLUSHER, 0, 0, 0, 0); err != nil || marked != 1 {
		t.Errorf("the thread has lost its mark: %d, %v", marked, err)
	}
}
