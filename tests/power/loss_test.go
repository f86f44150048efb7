// SPDX-License-Identifier: Apache-2.0

//go:build linux

package power

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/nbd"
	"github.com/twinbd/twinbd/tests/drive"
)

// A drive loses what was not flushed, torn and in no order, and nothing else.
func TestDriveLosesWhatWasNotFlushed(t *testing.T) {
	random := rand.New(rand.NewPCG(newSeed(t), 0))
	const count = 256 // sectors of each kind
	d := drive.New(t, filepath.Join(t.TempDir(), "drive"), 4*count*drive.SectorSize)
	defer d.Free(t)
	d.PowerOn(t)
	c, err := nbd.Dial(t.Context(), d.URI(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	put := func(kind int, content byte, flags block.Flags) {
		t.Helper()
		if err := c.WriteAt(bytes.Repeat([]byte{content}, count*drive.SectorSize), int64(kind)*count*drive.SectorSize, flags); err != nil {
			t.Fatal(err)
		}
	}
	put(0, 1, 0)
	put(1, 1, 0)
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	put(1, 2, 0)
	put(1, 3, 0)
	put(2, 4, 0)
	put(2, 5, block.FUA)
	put(3, 6, 0)
	if at := d.Volatile(4 * count * drive.SectorSize); at != count {
		t.Errorf("the first sector that a cut could change is %d, want %d", at, count)
	}
	if l := d.Cut(random, 0.5); l.Doubt != 2*count || l.Lost == 0 || l.Lost == l.Doubt {
		t.Errorf("lost %v sectors", l)
	}
	d.PowerOff(t)

	seen := func(kind int) map[byte]int {
		found := make(map[byte]int)
		for s := int64(kind * count); s < int64(kind+1)*count; s++ {
			content := d.Sector(s)
			found[content[0]]++
			if !bytes.Equal(content, bytes.Repeat(content[:1], drive.SectorSize)) {
				t.Errorf("sector %d is torn", s)
			}
		}
		return found
	}
	if got := seen(0); got[1] != count {
		t.Errorf("flushed: %v", got)
	}
	if got := seen(1); got[1] == 0 || got[2] == 0 || got[3] == 0 || len(got) != 3 {
		t.Errorf("flushed, then written twice: %v", got)
	}
	if got := seen(2); got[5] != count {
		t.Errorf("written with FUA: %v", got)
	}
	if got := seen(3); got[0] == 0 || got[6] == 0 || len(got) != 2 {
		t.Errorf("written: %v", got)
	}
}

// What a process writes to the device of a drive is there after a cut exactly if
// the process had asked for it: fdatasync goes all the way, and neither nbdfuse nor
// the kernel keeps anything that the drive has lost.
func TestDeviceLosesWhatWasNotFlushed(t *testing.T) {
	need(t)
	dir := t.TempDir()
	disk := drive.New(t, filepath.Join(dir, "drive"), 1<<20)
	defer disk.Free(t)
	disk.PowerOn(t)
	dev := attach(t, filepath.Join(dir, "file"), disk.URI())
	f, err := os.OpenFile(dev.name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	put := func(f *os.File, at int64, content byte) {
		t.Helper()
		page := pageOf(content)
		if n, err := unix.Pwrite(int(f.Fd()), page, at*4096); err != nil || n != len(page) {
			t.Fatalf("write page %d: %d, %v", at, n, err)
		}
	}
	put(f, 0, 1)
	put(f, 1, 1)
	if at := disk.Volatile(1 << 20); at >= 0 {
		t.Errorf("sector %d has reached the drive before anybody asked for it", at)
	}
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		t.Fatal(err)
	}
	if at := disk.Volatile(1 << 20); at >= 0 || disk.Data[0] != 1 || disk.Data[4096] != 1 {
		t.Errorf("after fdatasync sector %d is volatile; the drive has %d and %d", at, disk.Data[0], disk.Data[4096])
	}
	direct, err := os.OpenFile(dev.name, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	put(direct, 1, 2) // in the drive, and no further
	put(direct, 2, 2)
	put(f, 3, 2) // not even there
	if at := disk.Volatile(1 << 20); at != 8 {
		t.Errorf("the first volatile sector is %d, want 8", at)
	}
	disk.Cut(rand.New(rand.NewPCG(1, 1)), 1)
	disk.PowerOff(t)
	if err := unix.Fdatasync(int(f.Fd())); err == nil {
		t.Error("a drive without power has flushed")
	}
	direct.Close()
	f.Close()
	dev.detach(t)

	disk.PowerOn(t)
	dev = attach(t, filepath.Join(dir, "file"), disk.URI())
	defer func() {
		dev.detach(t)
		disk.PowerOff(t)
	}()
	got, err := os.ReadFile(dev.name)
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range []byte{1, 1, 0, 0} {
		if page := got[at*4096:][:4096]; !bytes.Equal(page, pageOf(want)) {
			t.Errorf("page %d begins with %d, want %d all over", at, page[0], want)
		}
	}
}

// pageOf is a page as direct I/O wants it, aligned.
func pageOf(content byte) []byte {
	page, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		panic(err) // no memory
	}
	for i := range page {
		page[i] = content
	}
	return page
}
