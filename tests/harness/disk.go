// SPDX-License-Identifier: Apache-2.0

//go:build linux

package harness

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
	"testing"
)

// SameDisks compares the two disks of every volume, byte by byte. Nobody may be
// writing.
func (l *Lab) SameDisks(t testing.TB) {
	t.Helper()
	for _, v := range l.options.Volumes {
		a, b := l.Alpha.Disk(v), l.Beta.Disk(v)
		at, err := firstDifference(a, b, l.options.Size)
		switch {
		case err != nil:
			t.Fatalf("compare the disks of %s: %v", v, err)
		case at >= 0:
			t.Errorf("the disks of %s differ at byte %d (block %d)", v, at, at/4096)
		}
	}
}

// firstDifference is the offset of the first byte in which two files differ, or -1.
func firstDifference(a, b string, size int64) (int64, error) {
	left, err := os.Open(a)
	if err != nil {
		return 0, err
	}
	defer left.Close()
	right, err := os.Open(b)
	if err != nil {
		return 0, err
	}
	defer right.Close()
	x, y := make([]byte, 1<<20), make([]byte, 1<<20)
	for offset := int64(0); offset < size; offset += int64(len(x)) {
		n := int(min(int64(len(x)), size-offset))
		_, err1 := left.ReadAt(x[:n], offset)
		_, err2 := right.ReadAt(y[:n], offset)
		if err := errors.Join(err1, err2); err != nil {
			return 0, err
		}
		if bytes.Equal(x[:n], y[:n]) {
			continue
		}
		for i := range n {
			if x[i] != y[i] {
				return offset + int64(i), nil
			}
		}
	}
	return -1, nil
}

// Checksum is the SHA-256 of the first size bytes of a file or device, of all of
// it for 0, or "none" when it is not there.
func Checksum(t testing.TB, path string, size int64) string {
	t.Helper()
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "none"
	} else if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var r io.Reader = f
	if size > 0 {
		r = io.LimitReader(f, size)
	}
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Unchanged remembers what is in the files and returns a check that all of it is
// still so.
func Unchanged(t testing.TB, paths ...string) (check func()) {
	t.Helper()
	before := make([]string, len(paths))
	for i, path := range paths {
		before[i] = Checksum(t, path, 0)
	}
	return func() {
		t.Helper()
		for i, path := range paths {
			if after := Checksum(t, path, 0); after != before[i] {
				t.Errorf("%s was changed", path)
			}
		}
	}
}

// Space is what a file takes on its file system, in bytes.
func Space(t testing.TB, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}

// Patch overwrites bytes of a file behind everybody's back.
func Patch(t testing.TB, path string, offset int64, data []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(data, offset)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}
