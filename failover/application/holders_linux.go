// SPDX-License-Identifier: Apache-2.0

package application

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// holders is the herd of those who use a file system: by an open file, a mapped
// one, a working directory, a root or their program.
type holders struct {
	major, minor uint32
	maps         string // the device as it stands in /proc/PID/maps
}

// newHolders takes the place where the file system is mounted.
func newHolders(at string) (*holders, error) {
	s, err := device(at, unix.AT_STATX_DONT_SYNC)
	if err != nil {
		return nil, err
	}
	return &holders{s.Dev_major, s.Dev_minor, fmt.Sprintf(" %02x:%02x ", s.Dev_major, s.Dev_minor)}, nil
}

// device asks for nothing that a file system would have to go to its disk for:
// the disk may be the one that does not answer.
func device(path string, flags int) (unix.Statx_t, error) {
	var s unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, flags|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &s)
	return s, err
}

func (h *holders) processes() ([]Process, error) {
	all, err := pids()
	if err != nil {
		return nil, err
	}
	var found []Process
	for _, pid := range all {
		if pid != 1 && pid != os.Getpid() && h.has(pid) {
			if p, _, ok := look(pid); ok {
				found = append(found, p)
			}
		}
	}
	return found, nil
}

func (h *holders) has(pid int) bool {
	dir := fmt.Sprintf("/proc/%d/", pid)
	for _, link := range []string{"cwd", "root", "exe"} {
		if h.is(dir + link) {
			return true
		}
	}
	// A process that cannot be looked at counts as one that does not hold it.
	entries, _ := os.ReadDir(dir + "fd")
	for _, entry := range entries {
		if h.is(filepath.Join(dir, "fd", entry.Name())) {
			return true
		}
	}
	return h.mapped(dir + "maps")
}

func (h *holders) is(link string) bool {
	s, err := device(link, 0)
	return err == nil && s.Dev_major == h.major && s.Dev_minor == h.minor
}

func (h *holders) mapped(file string) bool {
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// 7f0000000000-7f0000001000 r--p 00000000 fe:01 131 /path
		if strings.Contains(lines.Text(), h.maps) {
			return true
		}
	}
	return false
}

func (h *holders) kill() error { return signal(h, syscall.SIGKILL) }
