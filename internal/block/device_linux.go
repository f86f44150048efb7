// SPDX-License-Identifier: Apache-2.0

package block

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// openDevice opens a block device for nobody else. O_EXCL without O_CREAT is
// the claim that mounts, swap, device mapper and md make too.
func openDevice(path string, flags int, number uint64) (_ *fileDisk, err error) {
	fd, err := open(path, flags|unix.O_EXCL)
	if err == unix.EBUSY {
		return nil, deviceInUse(number)
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
		}
	}()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK || uint64(st.Rdev) != number {
		return nil, errors.New("it was exchanged while it was opened")
	}
	if sector, err := unix.IoctlGetUint32(fd, unix.BLKSSZGET); err != nil {
		return nil, fmt.Errorf("ask for the sector size: %w", err)
	} else if sector > Size {
		return nil, fmt.Errorf("sectors of %d bytes: %w: at most %d", sector, NotSupported, Size)
	}
	// The end is where BLKGETSIZE64 says, without an ioctl on a 64-bit number.
	size, err := unix.Seek(fd, 0, unix.SEEK_END)
	if err != nil {
		return nil, fmt.Errorf("ask for the size: %w", err)
	}
	if size == 0 {
		return nil, &hintError{errors.New("the device is empty: no medium, or not set up"), "correct the path, or set the device up"}
	}
	return &fileDisk{fd: fd, path: path, size: size, device: true, slowZero: !deviceZeroes(number)}, nil
}

// sysfsOf is the directory of a block device in sysfs.
func sysfsOf(number uint64) string {
	return fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(number), unix.Minor(number))
}

// wholeDisk is the sysfs directory of the disk that a device is, or is a
// partition of.
func wholeDisk(number uint64) string {
	dir, err := filepath.EvalSymlinks(sysfsOf(number))
	if err != nil {
		return sysfsOf(number)
	}
	if _, err := os.Stat(dir + "/partition"); err == nil {
		return filepath.Dir(dir)
	}
	return dir
}

// deviceZeroes says whether the device zeroes ranges by itself.
func deviceZeroes(number uint64) bool {
	limit := sysfsText(wholeDisk(number) + "/queue/write_zeroes_max_bytes")
	return limit != "" && limit != "0"
}

// sysfsText is the content of a one-line file, empty when there is none.
func sysfsText(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(strings.Trim(string(b), "\x00"))
}

// deviceInUse says who has claimed a device, as far as that can be found out.
func deviceInUse(number uint64) error {
	family := deviceFamily(number)
	if at := mountPoint(family); at != "" {
		return &hintError{fmt.Errorf("%w: mounted at %s", ErrInUse, at), "unmount it, after making sure that nobody needs what is on it"}
	}
	if name := swapDevice(family); name != "" {
		return &hintError{fmt.Errorf("%w as swap space", ErrInUse), "`swapoff " + name + "`, or choose another disk"}
	}
	if name := holder(family); name != "" {
		return &hintError{fmt.Errorf("%w by %s, which is built on it", ErrInUse, name), "take that apart, or choose another disk"}
	}
	return inUseBy(userOf(func(fdPath, _ string) bool {
		name, err := os.Readlink(fdPath)
		return err == nil && family[deviceNumber(name)] != ""
	}))
}

// deviceFamily is a device, the disk that it is a partition of, and its own
// partitions, by number, with their directories in sysfs: a claim on the disk
// and one on a partition exclude each other.
func deviceFamily(number uint64) map[uint64]string {
	family := map[uint64]string{number: sysfsOf(number)}
	add := func(dir string) {
		var major, minor uint32
		if _, err := fmt.Sscanf(sysfsText(dir+"/dev"), "%d:%d", &major, &minor); err == nil {
			family[unix.Mkdev(major, minor)] = dir
		}
	}
	add(wholeDisk(number))
	partitions, _ := filepath.Glob(sysfsOf(number) + "/*/partition")
	for _, p := range partitions {
		add(filepath.Dir(p))
	}
	return family
}

// mountPoint is where one of the devices is mounted, in this mount namespace.
// The format is that of proc_pid_mountinfo(5).
func mountPoint(family map[uint64]string) string {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		mount, source, _ := strings.Cut(lines.Text(), " - ")
		fields, source2 := strings.Fields(mount), strings.Fields(source)
		if len(fields) < 5 || len(source2) < 2 {
			continue
		}
		var major, minor uint32
		_, err := fmt.Sscanf(fields[2], "%d:%d", &major, &minor)
		known := err == nil && family[unix.Mkdev(major, minor)] != ""
		// btrfs has a number of its own there, but names its device.
		if known || family[deviceNumber(source2[1])] != "" {
			return unescapeMount(fields[4])
		}
	}
	return ""
}

// deviceNumber is the number of the block device at path, or 0.
func deviceNumber(path string) uint64 {
	var st unix.Stat_t
	if !strings.HasPrefix(path, "/dev/") || unix.Stat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0
	}
	return uint64(st.Rdev)
}

// unescapeMount undoes the octal escapes of mountinfo.
func unescapeMount(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		if s[0] == '\\' && len(s) >= 4 {
			if c, err := strconv.ParseUint(s[1:4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				s = s[4:]
				continue
			}
		}
		b.WriteByte(s[0])
		s = s[1:]
	}
	return b.String()
}

// swapDevice names the one of the devices that is swap space.
func swapDevice(family map[uint64]string) string {
	swaps, err := os.ReadFile("/proc/swaps")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(swaps)) {
		if fields := strings.Fields(line); len(fields) > 0 && family[deviceNumber(fields[0])] != "" {
			return fields[0]
		}
	}
	return ""
}

// holder names a device that is built on one of these: LVM, LUKS, md, bcache.
func holder(family map[uint64]string) string {
	for _, dir := range family {
		entries, err := os.ReadDir(dir + "/holders")
		if err != nil || len(entries) == 0 {
			continue
		}
		name := entries[0].Name()
		if alias := sysfsText(dir + "/holders/" + name + "/dm/name"); alias != "" {
			return "/dev/mapper/" + alias
		}
		return "/dev/" + name
	}
	return ""
}
