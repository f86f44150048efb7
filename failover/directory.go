// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Directory is a flat directory of small files, as a register or a node needs
// it. Calls may overlap as long as they concern different names. The package
// failovertest has one in memory that can lose power.
type Directory interface {
	// Names lists the files, in any order.
	Names() ([]string, error)

	// Open opens a file for reading and writing; the error wraps
	// fs.ErrNotExist when there is none. Create makes an empty one, in place
	// of one that exists.
	Open(name string) (File, error)
	Create(name string) (File, error)

	// Rename gives a closed file another name, in place of a file that has
	// it, in one step.
	Rename(from, to string) error

	// Sync makes durable which names there are.
	Sync() error

	Close() error
}

// File is one of them. What WriteAt took survives a power cut after the next
// successful Sync; after a failed one it may be read back and be lost all the
// same.
type File interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
	Close() error
}

// lockName is the file whose lock says that the directory is in use.
const lockName = "lock"

// OpenDirectory opens the directory at path, made if need be, for this process
// alone.
func OpenDirectory(path string) (Directory, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock of state directory: %w", err)
	}
	if err := lockFile(lock); err != nil {
		lock.Close()
		if errors.Is(err, errLocked) {
			return nil, fmt.Errorf("state directory %s is in use by another twinbd; hint: stop it, or choose another directory", path)
		}
		return nil, fmt.Errorf("lock state directory %s: %w", path, err)
	}
	return &directory{path: path, lock: lock}, nil
}

// errLocked is lockFile's error when another process has the lock.
var errLocked = errors.New("locked")

// directory is a Directory of the operating system.
type directory struct {
	path string
	lock *os.File
}

func (d *directory) Names() ([]string, error) {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func (d *directory) Open(name string) (File, error) { return d.open(name, os.O_RDWR) }

func (d *directory) Create(name string) (File, error) {
	// A file of its own, not the old one truncated: what a failed flush did to
	// the old one's pages must not matter.
	if err := os.Remove(filepath.Join(d.path, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return d.open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

func (d *directory) open(name string, flags int) (File, error) {
	f, err := os.OpenFile(filepath.Join(d.path, name), flags, 0o600)
	if err != nil {
		return nil, err
	}
	return file{f}, nil
}

func (d *directory) Rename(from, to string) error {
	return os.Rename(filepath.Join(d.path, from), filepath.Join(d.path, to))
}

func (d *directory) Sync() error { return syncDirectory(d.path) }

func (d *directory) Close() error { return d.lock.Close() }

// file is a File of the operating system.
type file struct{ *os.File }

func (f file) Sync() error { return syncFile(f.File) }
