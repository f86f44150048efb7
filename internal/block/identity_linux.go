// SPDX-License-Identifier: Apache-2.0

package block

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// fileID names a file by its inode and the nanosecond in which it was made:
// no two files share both, and neither changes with a reboot, a renamed disk or
// a newer kernel, as the numbers that stand for a file system do. Only where
// there is no time of birth the file system's own number has to help.
func fileID(fd int) (string, error) {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_BTIME, &st)
	if err == nil && st.Mask&unix.STATX_BTIME != 0 {
		return fmt.Sprintf("file:%d:%d.%09d", st.Ino, st.Btime.Sec, st.Btime.Nsec), nil
	}
	var old unix.Stat_t
	if err := unix.Fstat(fd, &old); err != nil {
		return "", fmt.Errorf("identify file: %w", err)
	}
	var system unix.Statfs_t
	if err := unix.Fstatfs(fd, &system); err != nil {
		return "", fmt.Errorf("identify file system: %w", err)
	}
	return fmt.Sprintf("file:%d:fs-%08x%08x", old.Ino, uint32(system.Fsid.Val[0]), uint32(system.Fsid.Val[1])), nil
}

// deviceID names a block device by what its maker or its creator wrote into it,
// and by its size. Names such as sda are no part of it: they change. A device
// that has nothing of the kind is known by its size alone.
func deviceID(fd int, size int64) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", fmt.Errorf("identify device: %w", err)
	}
	number := uint64(st.Rdev)
	name := deviceName(wholeDisk(number))
	if part := sysfsText(sysfsOf(number) + "/partition"); part != "" {
		name += "-part" + part + "@" + sysfsText(sysfsOf(number)+"/start")
	}
	return fmt.Sprintf("device:%s:%d", name, size), nil
}

// deviceName looks in sysfs, which needs no udev, then for the names that udev
// has made.
func deviceName(disk string) string {
	for _, attribute := range []string{
		"wwid", "device/wwid", // NVMe; SCSI and SATA
		"serial", "device/serial", // virtio; NVMe controllers and MMC
		"dm/uuid", "md/uuid", // LVM and LUKS; md
	} {
		if text := sysfsText(disk + "/" + attribute); text != "" {
			return strings.Join(strings.Fields(text), "_")
		}
	}
	if name := byID(filepath.Base(disk)); name != "" {
		return name
	}
	if backing := sysfsText(disk + "/loop/backing_file"); backing != "" {
		if f, err := os.Open(backing); err == nil {
			defer f.Close()
			if id, err := fileID(int(f.Fd())); err == nil {
				return "loop-" + id
			}
		}
	}
	return "unnamed"
}

// byID is the first, in the order of the alphabet, of the names of a device in
// /dev/disk/by-id.
func byID(device string) string {
	const dir = "/dev/disk/by-id"
	entries, _ := os.ReadDir(dir) // sorted
	for _, e := range entries {
		target, err := os.Readlink(dir + "/" + e.Name())
		if err == nil && filepath.Base(target) == device {
			return e.Name()
		}
	}
	return ""
}
