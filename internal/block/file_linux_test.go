// SPDX-License-Identifier: Apache-2.0

package block

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newTestFile makes a file in dir and opens it for the length of the test.
func newTestFile(t testing.TB, dir string, size int64, thin bool) *fileDisk {
	t.Helper()
	path := filepath.Join(dir, "disk")
	must(t, CreateFile(path, size, thin))
	d, err := openDisk(path, false)
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	return d
}

// allocated is the space in bytes that a file takes.
func (d *fileDisk) allocated(t testing.TB) int64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Fstat(d.fd, &st))
	return st.Blocks * 512
}

func TestSpace(t *testing.T) {
	const size, part = 8 << 20, 4 << 20
	full, empty := int64(size), int64(0)
	for _, c := range []struct {
		name string
		thin bool
		do   func(*fileDisk) error
		want int64
	}{
		{"preallocated", false, func(*fileDisk) error { return nil }, full},
		{"thin", true, func(*fileDisk) error { return nil }, empty},
		{"written", true, func(d *fileDisk) error { return writeZeroes(d, 0, part) }, part},
		{"zeroed, keeping the space", false, func(d *fileDisk) error { return d.Zero(0, part, false) }, full},
		{"punched", false, func(d *fileDisk) error { return d.Zero(0, part, true) }, size - part},
		{"zeroed, taking the space", true, func(d *fileDisk) error { return d.Zero(0, part, false) }, part},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newTestFile(t, t.TempDir(), size, c.thin)
			must(t, c.do(d))
			must(t, d.Sync())
			if d.noPunch.Load() || d.noZeroRange.Load() {
				t.Skip("this file system cannot do it")
			}
			// A file system may take a little for its own bookkeeping.
			if got := d.allocated(t); got < c.want || got > c.want+64<<10 {
				t.Errorf("%d bytes are allocated, not %d", got, c.want)
			}
			if d.Size() != size {
				t.Errorf("the size is %d", d.Size())
			}
		})
	}
}

func TestHolesOfAThinFile(t *testing.T) {
	d := newTestFile(t, t.TempDir(), 8<<20, true)
	must(t, d.WriteAt([]byte("island"), 5<<20))
	start, end, err := d.NextData(0)
	must(t, err)
	if start == 0 && end == d.Size() {
		t.Skip("this file system does not know its holes")
	}
	if start < 4<<20 || start > 5<<20 || end <= 5<<20 || end > 6<<20 {
		t.Errorf("data from %d to %d", start, end)
	}
	if start, end, err = d.NextData(end); err != nil || start != d.Size() || end != d.Size() {
		t.Errorf("then from %d to %d, %v", start, end, err)
	}
}

// A store that turns fallocate down gets zeroes written, and is not asked again.
func TestZeroWithoutSupport(t *testing.T) {
	for _, punch := range []bool{false, true} {
		d := newTestFile(t, t.TempDir(), 4<<20, true)
		d.noPunch.Store(true)
		d.noZeroRange.Store(true)
		must(t, d.WriteAt(bytes.Repeat([]byte{1}, 3<<20), 0))
		must(t, d.Zero(1000, 2<<20, punch))
		got := make([]byte, 3<<20)
		must(t, d.ReadAt(got, 0))
		if want := bytes.Count(got, []byte{0}); want != 2<<20 || got[999] != 1 || got[1000] != 0 || got[1000+2<<20] != 1 {
			t.Errorf("%d bytes are zero", want)
		}
		if d.FastZero() && !d.neverWaits {
			t.Error("it claims to be fast")
		}
	}
}

// On a device only whole pages go to the driver; the rest is written. A file
// behaves the same, which is enough to see the borders.
func TestZeroOfADeviceAtAnyBorder(t *testing.T) {
	d := newTestFile(t, t.TempDir(), 1<<20, true)
	d.device = true
	const around = 16 << 10
	for _, punch := range []bool{false, true} {
		for _, r := range [][2]int64{{0, 4096}, {1, 4095}, {1, 4096}, {4095, 2}, {4096, 8192}, {4097, 8190}, {100, 200}, {511, 12000}, {5, 0}} {
			must(t, d.WriteAt(bytes.Repeat([]byte{1}, around), 0))
			must(t, d.Zero(r[0], r[1], punch))
			want := bytes.Repeat([]byte{1}, around)
			clear(want[r[0] : r[0]+r[1]])
			got := make([]byte, around)
			must(t, d.ReadAt(got, 0))
			if !bytes.Equal(got, want) {
				t.Errorf("%d bytes at %d, punch %t: not what was asked", r[1], r[0], punch)
			}
		}
	}
}

// The first failed Sync is the answer to all that follow, though the store
// would do the second one.
func TestFailedSyncStaysFailed(t *testing.T) {
	good := newTestFile(t, t.TempDir(), 1<<20, true)
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	defer w.Close()
	fd, err := unix.Dup(int(w.Fd()))
	must(t, err)
	d := &fileDisk{fd: fd, path: "pipe", size: 1 << 20}
	defer d.Close()

	first := d.Sync() // a pipe cannot
	if StatusOf(first) != IOError || !strings.Contains(first.Error(), "sync pipe") {
		t.Fatalf("sync: %v", first)
	}
	must(t, unix.Dup3(good.fd, fd, unix.O_CLOEXEC))
	if err := unix.Fdatasync(d.fd); err != nil {
		t.Fatalf("the store would not do it: %v", err)
	}
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			if err := d.Sync(); err != first {
				t.Errorf("a later sync: %v", err)
			}
		})
	}
	group.Wait()
}

func TestFileCutShort(t *testing.T) {
	d := newTestFile(t, t.TempDir(), 1<<20, true)
	must(t, os.Truncate(d.path, 8192+100))
	p := make([]byte, 4096)
	must(t, d.ReadAt(p, 0))
	if err := d.ReadAt(p, 8192); !errors.Is(err, io.ErrUnexpectedEOF) || StatusOf(err) != IOError {
		t.Errorf("a read across the new end: %v", err)
	}
	if err := d.TryReadAt(p, 8192); err == nil {
		t.Error("it read across the new end")
	}
}

func TestTryRead(t *testing.T) {
	d := newTestFile(t, t.TempDir(), 1<<20, true)
	want := bytes.Repeat([]byte{7}, 8192)
	must(t, d.WriteAt(want, 4096))
	got := make([]byte, 8192)
	if err := d.TryReadAt(got, 4096); err == ErrWouldBlock {
		t.Skip("this file system does not know what is in memory")
	} else if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("a read of what was just written: %v", err)
	}
	must(t, d.Sync())
	d.Drop(0, d.size)
	// Now it may have to wait; then reading it makes it ready again.
	if err := d.TryReadAt(got, 4096); err != nil && err != ErrWouldBlock {
		t.Errorf("a read of what was dropped: %v", err)
	}
	must(t, d.ReadAt(got, 4096))
	if err := d.TryReadAt(got, 4096); err != nil || !bytes.Equal(got, want) {
		t.Errorf("a read of what was just read: %v", err)
	}

	d.noTryRead.Store(true)
	if err := d.TryReadAt(got, 4096); err != ErrWouldBlock {
		t.Errorf("where it cannot be asked: %v", err)
	}
}

// mountSmall mounts a file system of size bytes in memory.
func mountSmall(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("mounting a small file system needs root: %v", err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

func TestFullFileSystem(t *testing.T) {
	dir := mountSmall(t, "1m")
	path := filepath.Join(dir, "disk")

	// Refused beforehand, and by the file system itself; either way nothing stays.
	for name, err := range map[string]error{
		"CreateFile":  CreateFile(path, 2<<20, false),
		"preallocate": explainCreate(path, 2<<20, preallocateOnly(t, path, 2<<20)),
	} {
		const want = ": needs 2 MiB, 1 MiB are free on "
		if err == nil || StatusOf(err) != NoSpace || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "thin = true") {
			t.Errorf("%s: %v", name, err)
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("%s left %s", name, left[0])
		}
	}

	d := newTestFile(t, dir, 2<<20, true)
	p := make([]byte, 64<<10)
	var err error
	for offset := int64(0); err == nil && offset < d.size; offset += int64(len(p)) {
		err = d.WriteAt(p, offset)
	}
	if StatusOf(err) != NoSpace {
		t.Fatalf("writing more than there is room for: %v", err)
	}
	must(t, d.Zero(0, d.size, true)) // punching makes room
	must(t, d.WriteAt(p, 0))
	if !d.neverWaits || d.TryReadAt(p, 0) != nil {
		t.Error("memory made somebody wait")
	}
}

// preallocateOnly is what CreateFile does once it believes that there is room.
func preallocateOnly(t *testing.T, path string, size int64) error {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	defer os.Remove(path)
	defer f.Close()
	return preallocate(f, size)
}

func TestFileBeyondTheFileSystemsLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	err := CreateFile(path, 1<<62, true)
	if err == nil {
		t.Skip("this file system has no limit")
	}
	if text := err.Error(); !strings.Contains(text, "4096 PiB are more than") || !strings.Contains(text, "hint:") {
		t.Errorf("%v", err)
	}
}

func TestBytesText(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 bytes", 1023: "1023 bytes", 1024: "1 KiB", 1<<20 - 1: "1023.9 KiB", 1 << 20: "1 MiB",
		10 << 30: "10 GiB", 3<<30 + 214<<20: "3.2 GiB", 3<<30 + 1: "3 GiB", 1 << 40: "1 TiB", 5 << 50: "5 PiB", 1<<63 - 1: "8191.9 PiB",
	} {
		if got := bytesText(n); got != want {
			t.Errorf("%d: %q, not %q", n, got, want)
		}
	}
}

func TestDataPathDoesNotAllocate(t *testing.T) {
	d := newTestFile(t, t.TempDir(), 4<<20, false)
	p := make([]byte, 4096)
	vector := make([][]byte, 20)
	for i := range vector {
		vector[i] = p
	}
	for name, call := range map[string]func() error{
		"read":         func() error { return d.ReadAt(p, 4096) },
		"try to read":  func() error { _ = d.TryReadAt(p, 4096); return nil },
		"write":        func() error { return d.WriteAt(p, 4096) },
		"write vector": func() error { return d.WriteVectorAt(vector, 4096) },
		"zero":         func() error { return d.Zero(4096, 4096, false) },
		"trim":         func() error { return d.Zero(4096, 4096, true) },
		"next data":    func() error { _, _, err := d.NextData(0); return err },
		"advise":       func() error { d.WillNeed(0, 4096); d.StartWriteback(0, 4096); d.Drop(0, 4096); return nil },
		"sync":         d.Sync,
	} {
		if n := testing.AllocsPerRun(10, func() { must(t, call()) }); n > 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

func BenchmarkFile(b *testing.B) {
	d := newTestFile(b, b.TempDir(), 16<<20, false)
	p := make([]byte, 4096)
	must(b, writeZeroes(d, 0, d.size))
	vector := [][]byte{p, p, p, p, p, p, p, p}
	for _, c := range []struct {
		name string
		call func() error
	}{
		{"read", func() error { return d.ReadAt(p, 8192) }},
		{"try-read", func() error { return d.TryReadAt(p, 8192) }},
		{"write", func() error { return d.WriteAt(p, 8192) }},
		{"write-vector-8", func() error { return d.WriteVectorAt(vector, 8192) }},
		{"zero-small", func() error { return d.Zero(8192, 4096, false) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := c.call(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
