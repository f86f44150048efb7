// SPDX-License-Identifier: Apache-2.0

package block

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// openDisk opens and locks a file or a block device.
func openDisk(path string, readOnly bool) (*fileDisk, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, err
	}
	flags := unix.O_RDWR
	if readOnly {
		flags = unix.O_RDONLY
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return openFile(path, flags)
	case unix.S_IFBLK:
		return openDevice(path, flags, uint64(st.Rdev))
	}
	return nil, &hintError{errors.New("neither a file nor a block device"), "correct the path"}
}

func openFile(path string, flags int) (_ *fileDisk, err error) {
	fd, err := open(path, flags)
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
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, errors.New("it was exchanged while it was opened")
	}
	if err := lockFile(fd, &st, flags == unix.O_RDONLY); err != nil {
		return nil, err
	}
	if flags != unix.O_RDONLY {
		if loop := loopDeviceOf(path); loop != "" {
			return nil, &hintError{fmt.Errorf("%w: it is the content of %s", ErrInUse, loop), "detach it with `losetup -d " + loop + "`"}
		}
	}
	return &fileDisk{fd: fd, path: path, size: st.Size, neverWaits: inMemory(fd)}, nil
}

func open(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// lockFile takes a lock of the open file description: it holds against other
// opens in this process too, ends with the descriptor, and qemu respects it.
func lockFile(fd int, st *unix.Stat_t, shared bool) error {
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if shared {
		lock.Type = unix.F_RDLCK
	}
	switch err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &lock); err {
	case nil:
		return nil
	case unix.EAGAIN, unix.EACCES:
		return inUseBy(userOf(func(fdPath, info string) bool {
			var other unix.Stat_t
			return strings.Contains(info, "\nlock:") && strings.Contains(info, fmt.Sprintf(":%d ", st.Ino)) &&
				unix.Stat(fdPath, &other) == nil && other.Dev == st.Dev && other.Ino == st.Ino
		}))
	default:
		return fmt.Errorf("lock: %w", err)
	}
}

// inUseBy is the error for a disk that a process uses. user is empty when it
// could not be found: another user's, or on another machine.
func inUseBy(user string) error {
	if user == "" {
		user = "another process"
	}
	return &hintError{fmt.Errorf("%w by %s", ErrInUse, user), "stop it first, or choose another disk"}
}

// userOf names the first process that has a file open that match knows: by the
// path of its descriptor in /proc, which leads to the open file, and by what
// fdinfo says, which includes its locks. /proc/locks would be shorter, but has no
// process for the kind of lock that is used here. match must not follow a path
// before it has reason to: what lies on a dead FUSE or NFS mount would hang it.
func userOf(match func(fdPath, info string) bool) string {
	self := os.Getpid()
	infos, _ := filepath.Glob("/proc/[0-9]*/fdinfo/*") // unreadable ones are left out
	for _, path := range infos {
		info, err := os.ReadFile(path)
		fdPath := strings.Replace(path, "/fdinfo/", "/fd/", 1)
		if err != nil || !match(fdPath, "\n"+string(info)) {
			continue
		}
		process := filepath.Dir(filepath.Dir(path))
		pid := filepath.Base(process)
		if pid == fmt.Sprint(self) {
			return "this process (pid " + pid + ")"
		}
		name, _ := os.ReadFile(process + "/comm")
		return fmt.Sprintf("another process (pid %s, %s)", pid, strings.TrimSpace(string(name)))
	}
	return ""
}

// loopDeviceOf returns the loop device that shows this file as a block device,
// if there is one: who writes to it takes no lock of the file. Paths are compared
// as text, since a backing file may lie on a mount that we ourselves serve.
func loopDeviceOf(path string) string {
	mine, err := filepath.Abs(path)
	if err != nil {
		return ""
	}
	if mine, err = filepath.EvalSymlinks(mine); err != nil {
		return ""
	}
	backing, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, name := range backing {
		content, err := os.ReadFile(name)
		if err == nil && strings.TrimSuffix(string(content), "\n") == mine {
			return "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(name)))
		}
	}
	return ""
}

// inMemory says whether a file's content is memory and nothing else.
func inMemory(fd int) bool {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return false
	}
	kind := uint32(st.Type)
	return kind == unix.TMPFS_MAGIC || kind == unix.RAMFS_MAGIC
}
