// SPDX-License-Identifier: Apache-2.0

package application

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mountEntry is a line of /proc/self/mountinfo, see proc_pid_mountinfo(5).
type mountEntry struct {
	device string // "major:minor"
	root   string // the part of the file system that is mounted
	at     string
	kind   string
	source string
}

// readMounts returns what is mounted, in the order of mounting.
func readMounts() ([]mountEntry, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	return parseMounts(string(text)), nil
}

func parseMounts(text string) (mounts []mountEntry) {
	for line := range strings.Lines(text) {
		// 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw
		before, after, ok := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 2 {
			continue
		}
		mounts = append(mounts, mountEntry{left[2], unescape(left[3]), unescape(left[4]), right[0], unescape(right[1])})
	}
	return mounts
}

// unescape undoes the octal escapes of mountinfo: blank, tab, newline and
// backslash.
func unescape(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+4 <= len(text) {
			if code, err := strconv.ParseUint(text[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(code))
				i += 3
				continue
			}
		}
		b.WriteByte(text[i])
	}
	return b.String()
}

// mountedAt returns the uppermost mount at a place, if there is one.
func mountedAt(place string) (top mountEntry, ok bool, err error) {
	mounts, err := readMounts()
	place = resolve(place)
	for _, m := range mounts {
		if m.at == place {
			top, ok = m, true
		}
	}
	return top, ok, err
}

// mountedFrom returns a mount of a device, if there is one.
func mountedFrom(device string) (mountEntry, bool, error) {
	mounts, err := readMounts()
	for _, m := range mounts {
		if m.isOf(device) {
			return m, true, nil
		}
	}
	return mountEntry{}, false, err
}

// isOf reports whether a device is what is mounted. File systems that span
// devices show a number of their own; then the name decides.
func (m mountEntry) isOf(device string) bool {
	var s unix.Stat_t
	if unix.Stat(device, &s) == nil && s.Mode&unix.S_IFMT == unix.S_IFBLK {
		if m.device == fmt.Sprintf("%d:%d", unix.Major(s.Rdev), unix.Minor(s.Rdev)) {
			return true
		}
	}
	return m.source == device || m.source == resolve(device)
}

// resolve follows symbolic links, as mount(8) does; what is not there stays.
func resolve(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return filepath.Clean(path)
}
