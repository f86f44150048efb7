// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// fileSystems are those that the doctor knows by name.
var fileSystems = map[int64]string{
	unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", 0x2fc12fc1: "zfs", unix.F2FS_SUPER_MAGIC: "f2fs",
	unix.TMPFS_MAGIC: "tmpfs", unix.RAMFS_MAGIC: "ramfs", unix.OVERLAYFS_SUPER_MAGIC: "overlay",
	unix.NFS_SUPER_MAGIC: "nfs", unix.SMB_SUPER_MAGIC: "smb", unix.CIFS_SUPER_MAGIC: "cifs", unix.FUSE_SUPER_MAGIC: "fuse", unix.V9FS_MAGIC: "9p",
}

func fileSystemOf(path string) (fileSystem, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return fileSystem{}, &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	var file unix.Stat_t
	if err := unix.Stat(path, &file); err != nil {
		return fileSystem{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	kind, known := fileSystems[int64(st.Type)]
	if !known {
		kind = fmt.Sprintf("file system %#x", st.Type)
	}
	return fileSystem{kind: kind, free: int64(st.Bavail) * int64(st.Bsize), device: uint64(file.Dev)}, nil
}

// writeCacheOf reads what the kernel believes of a device's cache.
func writeCacheOf(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	name := filepath.Base(real)
	for _, file := range []string{"/sys/class/block/" + name + "/queue/write_cache", "/sys/class/block/" + name + "/../queue/write_cache"} {
		if text, err := os.ReadFile(file); err == nil {
			return strings.TrimSpace(string(text)), nil
		}
	}
	return "", errors.ErrUnsupported
}

// ownCapabilities are the effective ones of this process.
func ownCapabilities() (uint64, error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(text) {
		if value, ok := strings.CutPrefix(string(line), "CapEff:"); ok {
			return strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		}
	}
	return 0, errors.ErrUnsupported
}

// moduleOf looks for a module in the running kernel and among what it can load.
func moduleOf(name string) (moduleState, error) {
	if _, err := os.Stat("/sys/module/" + name); err == nil {
		return moduleHere, nil
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", err
	}
	dir := "/lib/modules/" + unix.ByteSliceToString(u.Release[:])
	for _, list := range []string{"modules.builtin", "modules.dep"} {
		text, err := os.ReadFile(filepath.Join(dir, list))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		if bytes.Contains(text, []byte("/"+name+".ko")) {
			return moduleCan, nil
		}
	}
	return moduleAbsent, nil
}
