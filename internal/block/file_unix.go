// SPDX-License-Identifier: Apache-2.0

//go:build unix && !linux

package block

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// lockFile takes a lock of the open file, which holds against other opens in
// this process too.
func lockFile(f *os.File, shared bool) error {
	how := unix.LOCK_EX
	if shared {
		how = unix.LOCK_SH
	}
	switch err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err {
	case nil:
		return nil
	case unix.EWOULDBLOCK:
		return errLocked
	default:
		return fmt.Errorf("lock: %w", err)
	}
}

// fileID names a file by its file system and its number there.
func fileID(f *os.File) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", fmt.Errorf("identify file: %w", err)
	}
	return fmt.Sprintf("file:%d:fs-%x", st.Ino, st.Dev), nil
}

// freeSpace is the number of bytes that this user may still take in dir.
func freeSpace(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

// preallocate gives a new file its space in the one way that is everywhere.
func preallocate(f *os.File, size int64) error {
	return writeZeroes(&fileDisk{file: f, path: f.Name(), size: size}, 0, size)
}

// syncDirectory makes the names in a directory durable.
func syncDirectory(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func isDiskFull(error) bool { return false }
