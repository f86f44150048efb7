// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// directory is where operations are carried out.
type directory struct {
	path string
	page []byte // memory that begins at a page, as long as an operation may be
}

func newDirectory(path string) *directory {
	memory := make([]byte, longest+pageSize)
	skip := -uintptr(unsafe.Pointer(&memory[0])) % pageSize
	return &directory{path, memory[skip:][:longest]}
}

func (d *directory) at(name string) string { return filepath.Join(d.path, name) }

// do carries an operation out. want is what the file must hold afterwards: a write
// takes from it what it writes, a read compares with it.
func (d *directory) do(o operation, want []byte) error {
	switch o.kind {
	case write, extend:
		return d.open(o, os.O_RDWR|os.O_CREATE, func(f *os.File) error { return put(f, o, want) })
	case writeDirect:
		return d.writeDirect(o, want)
	case resize:
		return d.open(o, os.O_RDWR|os.O_CREATE, func(f *os.File) error { return f.Truncate(o.length) })
	case store, storeSynced:
		return d.open(o, os.O_RDWR, func(f *os.File) error { return storeMapped(f, o, want) })
	case punch:
		return d.open(o, os.O_RDWR, func(f *os.File) error {
			return allocate(f, o, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE)
		})
	case zero:
		return d.open(o, os.O_RDWR, func(f *os.File) error {
			err := allocate(f, o, unix.FALLOC_FL_ZERO_RANGE)
			if errors.Is(err, errors.ErrUnsupported) {
				return put(f, o, want) // as tmpfs has it
			}
			return err
		})
	case rename:
		return os.Rename(d.at(o.name), d.at(o.to))
	case remove:
		return os.Remove(d.at(o.name))
	case syncFile:
		return d.open(o, os.O_RDWR, (*os.File).Sync)
	case syncData:
		return d.open(o, os.O_RDWR, func(f *os.File) error { return os.NewSyscallError("fdatasync", unix.Fdatasync(int(f.Fd()))) })
	case syncDirectory:
		return open(d.path, os.O_RDONLY, (*os.File).Sync)
	case read:
		return d.open(o, os.O_RDONLY, func(f *os.File) error { return d.readAt(f, o, want) })
	case readDirect:
		return d.readDirect(o, want)
	case readMapped:
		return d.open(o, os.O_RDONLY, func(f *os.File) error { return compareMapped(f, o, want) })
	}
	return nil
}

func (d *directory) open(o operation, flags int, work func(*os.File) error) error {
	return open(d.at(o.name), flags, work)
}

func open(path string, flags int, work func(*os.File) error) error {
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(work(f), f.Close())
}

func put(f *os.File, o operation, want []byte) error {
	_, err := f.WriteAt(want[o.offset:][:o.length], o.offset)
	return err
}

func (d *directory) writeDirect(o operation, want []byte) error {
	copy(d.page, want[o.offset:][:o.length])
	err := d.open(o, os.O_RDWR|os.O_CREATE|unix.O_DIRECT, func(f *os.File) error {
		_, err := f.WriteAt(d.page[:o.length], o.offset)
		return err
	})
	if errors.Is(err, unix.EINVAL) { // a file system without it
		return d.open(o, os.O_RDWR|os.O_CREATE, func(f *os.File) error { return put(f, o, want) })
	}
	return err
}

func (d *directory) readDirect(o operation, want []byte) error {
	err := d.open(o, os.O_RDONLY|unix.O_DIRECT, func(f *os.File) error {
		n, err := unix.Pread(int(f.Fd()), d.page[:o.length], o.offset) // once: behind a short one the rest begins nowhere
		if err != nil {
			return os.NewSyscallError("pread", err)
		}
		return compareRange(o, d.page[:n], want)
	})
	if errors.Is(err, unix.EINVAL) {
		return d.open(o, os.O_RDONLY, func(f *os.File) error { return d.readAt(f, o, want) })
	}
	return err
}

func (d *directory) readAt(f *os.File, o operation, want []byte) error {
	n, err := f.ReadAt(d.page[:o.length], o.offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return compareRange(o, d.page[:n], want)
}

// compareRange compares what was read of a range with what there is of it.
func compareRange(o operation, got, want []byte) error {
	size := int64(len(want))
	return difference(o.name, o.offset, got, want[min(o.offset, size):min(o.offset+o.length, size)])
}

func allocate(f *os.File, o operation, mode uint32) error {
	return os.NewSyscallError("fallocate", unix.Fallocate(int(f.Fd()), mode, o.offset, o.length))
}

// mapped maps the pages of a range, and passes on the range.
func mapped(f *os.File, o operation, protection int, work func(pages, part []byte) error) error {
	skip := o.offset % pageSize
	pages, err := unix.Mmap(int(f.Fd()), o.offset-skip, int(skip+o.length), protection, unix.MAP_SHARED)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	return errors.Join(work(pages, pages[skip:]), os.NewSyscallError("munmap", unix.Munmap(pages)))
}

func storeMapped(f *os.File, o operation, want []byte) error {
	return mapped(f, o, unix.PROT_READ|unix.PROT_WRITE, func(pages, part []byte) error {
		copy(part, want[o.offset:])
		if o.kind == store {
			return nil
		}
		return os.NewSyscallError("msync", unix.Msync(pages, unix.MS_SYNC))
	})
}

func compareMapped(f *os.File, o operation, want []byte) error {
	return mapped(f, o, unix.PROT_READ, func(_, part []byte) error {
		return difference(o.name, o.offset, part, want[o.offset:][:o.length])
	})
}

// forget writes what the cache holds of the files, and empties it as far as it can be
// emptied without harm to others.
func (d *directory) forget() error {
	if err := d.sync(); err != nil {
		return err
	}
	entries, err := os.ReadDir(d.path)
	for _, e := range entries {
		err = errors.Join(err, open(d.at(e.Name()), os.O_RDONLY, func(f *os.File) error {
			return os.NewSyscallError("fadvise", unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
		}))
	}
	return err
}

// sync makes everything durable.
func (d *directory) sync() error {
	return open(d.path, os.O_RDONLY, func(f *os.File) error { return os.NewSyscallError("syncfs", unix.Syncfs(int(f.Fd()))) })
}
