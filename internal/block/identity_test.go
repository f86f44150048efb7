// SPDX-License-Identifier: Apache-2.0

package block_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/internal/block/blocktest"
)

func TestFileIdentity(t *testing.T) {
	path, d := newFile(t, 1<<20, true)
	first, err := block.DiskID(d)
	must(t, err)
	if !strings.HasPrefix(first, "file:") || len(first) > 100 {
		t.Errorf("the identity is %q", first)
	}
	must(t, d.WriteAt([]byte("content"), 0))
	must(t, d.Close())

	open := func(path string) string {
		d, err := block.Open(path, block.OpenOptions{})
		must(t, err)
		defer d.Close()
		id, err := block.DiskID(d)
		must(t, err)
		return id
	}
	moved := filepath.Join(filepath.Dir(path), "moved")
	must(t, os.Rename(path, moved))
	if again := open(moved); again != first {
		t.Errorf("written and moved, %q is %q", first, again)
	}
	content, err := os.ReadFile(moved)
	must(t, err)
	must(t, os.WriteFile(path, content, 0o600))
	if other := open(path); other == first {
		t.Errorf("a copy has the identity of its original, %q", first)
	}
}

func TestDiskIDNeedsAnIdentifier(t *testing.T) {
	if id, err := block.DiskID(struct{ block.Disk }{}); err == nil {
		t.Errorf("a disk without an identity has %q", id)
	}
}

func TestSignature(t *testing.T) {
	const size = 1<<20 + 1536 // ends in the middle of a block, as partitions do
	const end = size &^ 4095
	ext := func(compatible, incompatible byte) map[int64]string {
		return map[int64]string{1024 + 56: "\x53\xef", 1024 + 92: string(rune(compatible)), 1024 + 96: string([]byte{incompatible})}
	}
	for _, c := range []struct {
		want  string
		marks map[int64]string
	}{
		{"", nil},
		{"", map[int64]string{0: "nothing special", 5000: "LABELONE"}},
		{"ext2", ext(0, 0x2)},
		{"ext3", ext(4, 0x2)},
		{"ext4", ext(4, 0x42)},
		{"", map[int64]string{1024 + 24: "\x07", 1024 + 56: "\x53\xef"}}, // no such block size
		{"XFS", map[int64]string{0: "XFSB"}},
		{"btrfs", map[int64]string{65600: "_BHRfS_M"}},
		{"LVM2 physical volume", map[int64]string{512: "LABELONE"}},
		{"LVM2 physical volume", map[int64]string{1536: "LABELONE"}},
		{"swap space", map[int64]string{4086: "SWAPSPACE2"}},
		{"LUKS", map[int64]string{0: "LUKS\xba\xbe\x00\x02"}},
		{"md RAID member", map[int64]string{4096: "\xfc\x4e\x2b\xa9"}},
		{"md RAID member", map[int64]string{0: "\xfc\x4e\x2b\xa9"}},
		{"md RAID member", map[int64]string{end - 8192: "\xfc\x4e\x2b\xa9"}},
		{"md RAID member", map[int64]string{size&^65535 - 65536: "\xfc\x4e\x2b\xa9"}},
		{"DRBD metadata", map[int64]string{end - 4096 + 60: "\x83\x74\x02\x6b"}},
		{"DRBD metadata", map[int64]string{end - 4096 + 60: "\x83\x74\x02\x6d"}},
		{"GPT partition table", map[int64]string{510: "\x55\xaa", 512: "EFI PART"}},
		{"GPT partition table", map[int64]string{size - 512: "EFI PART"}},
		{"boot sector or MBR partition table", map[int64]string{510: "\x55\xaa"}},
		{"NTFS", map[int64]string{3: "NTFS    ", 510: "\x55\xaa"}},
		{"FAT", map[int64]string{82: "FAT32   ", 510: "\x55\xaa"}},
		{"qcow2 image", map[int64]string{0: "QFI\xfb\x00\x00\x00\x03"}},
		{"twinbd metadata", map[int64]string{0: "twinbdH1"}},
		{"twinbd metadata", map[int64]string{600 << 10: "twinbdH1", 1080: "\x53\xef"}},
		{"twinbd metadata", map[int64]string{end: "twinbdH2"}},
		{"", map[int64]string{600<<10 + 8: "twinbdH1"}}, // somebody's text, in no place of ours
	} {
		d := blocktest.NewMemory(size)
		for at, mark := range c.marks {
			must(t, d.WriteAt([]byte(mark), at))
		}
		if got, err := block.Signature(d); got != c.want || err != nil {
			t.Errorf("%v: %q, %v; not %q", c.marks, got, err, c.want)
		}
	}
	for size := range int64(600) { // nothing is looked for beyond the end
		if got, err := block.Signature(blocktest.NewMemory(size)); got != "" || err != nil {
			t.Errorf("on %d bytes: %q, %v", size, got, err)
		}
	}
}

func TestSignatureOfAnUnreadableDisk(t *testing.T) {
	d := blocktest.NewCrashDisk(1 << 20)
	d.Unreadable(65536, 512)
	if got, err := block.Signature(d); got != "" || block.StatusOf(err) != block.IOError {
		t.Errorf("%q, %v", got, err)
	}
}

// plain hides what a disk can do besides.
type plain struct{ block.Disk }

func TestIsZero(t *testing.T) {
	const size = 3<<20 + 5
	for _, at := range []int64{-1, 0, 4095, 1 << 20, 2<<20 - 1, size - 1} {
		for _, mapped := range []bool{true, false} {
			var d block.Disk = blocktest.NewMemory(size)
			if at >= 0 {
				must(t, d.WriteAt([]byte{1}, at))
			}
			if !mapped {
				d = plain{d}
			}
			last := int64(0)
			zero, err := block.IsZero(t.Context(), d, func(done, total int64) {
				if done <= last || total != size {
					t.Errorf("progress went from %d to %d of %d", last, done, total)
				}
				last = done
			})
			if zero != (at < 0) || err != nil || zero && last != size {
				t.Errorf("with a one at %d, mapped %t: %t, %v, proven to %d", at, mapped, zero, err, last)
			}
		}
	}
}

func TestIsZeroEndsEarly(t *testing.T) {
	stop := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	zero, err := block.IsZero(ctx, plain{blocktest.NewMemory(8 << 20)}, func(int64, int64) { cancel(stop) })
	if zero || !errors.Is(err, stop) {
		t.Errorf("stopped: %t, %v", zero, err)
	}
	d := blocktest.NewCrashDisk(1 << 20)
	d.FailNext(block.Read, 1, io.ErrUnexpectedEOF)
	if zero, err := block.IsZero(t.Context(), plain{d}, nil); zero || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("unreadable: %t, %v", zero, err)
	}
}
