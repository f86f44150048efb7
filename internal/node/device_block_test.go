// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

func TestSmallestBlock(t *testing.T) {
	const disk = 64 << 20
	for name, test := range map[string]struct {
		make func(b []byte)
		want int
	}{
		"blank":     {func([]byte) {}, 4096},
		"ext4":      {func(b []byte) { binary.LittleEndian.PutUint16(b[1080:], 0xef53); b[1048] = 2 }, 4096},
		"ext4 1K":   {func(b []byte) { binary.LittleEndian.PutUint16(b[1080:], 0xef53) }, 1024},
		"ext4 64K":  {func(b []byte) { binary.LittleEndian.PutUint16(b[1080:], 0xef53); b[1048] = 6 }, 4096},
		"ext4 ?":    {func(b []byte) { binary.LittleEndian.PutUint16(b[1080:], 0xef53); b[1051] = 0xff }, 4096},
		"XFS 512":   {func(b []byte) { copy(b, "XFSB"); binary.BigEndian.PutUint16(b[102:], 512) }, 512},
		"XFS 4K":    {func(b []byte) { copy(b, "XFSB"); binary.BigEndian.PutUint16(b[102:], 4096) }, 4096},
		"XFS wrong": {func(b []byte) { copy(b, "XFSB"); binary.BigEndian.PutUint16(b[102:], 777) }, 4096},
		"LVM":       {func(b []byte) { copy(b[512:], "LABELONE") }, 512},
		"GPT":       {func(b []byte) { putTable(b, 1, 1<<20); copy(b[512:], "EFI PART") }, 512},
		"GPT 4K":    {func(b []byte) { putTable(b, 1, 1<<12); copy(b[4096:], "EFI PART") }, 4096},
		"FAT":       {func(b []byte) { putTable(b); b[446] = 0x77; b[450] = 0x3e }, 512},

		// As sfdisk makes them, the first at 1 MiB.
		"MBR":                 {func(b []byte) { putTable(b, 2048, 16384, 18432, 24576) }, 512},
		"MBR 4K":              {func(b []byte) { putTable(b, 256, 2048, 2304, 3072) }, 4096},
		"MBR of old":          {func(b []byte) { putTable(b, 63, 16002) }, 512},
		"MBR, early, longest": {func(b []byte) { putTable(b, 256, disk/512-256) }, 512}, // by 4 KiB it were too long
		"MBR, 4K, longest":    {func(b []byte) { putTable(b, 256, disk/4096-256) }, 4096},
		"MBR of nothing":      {func(b []byte) { putTable(b) }, 512},
	} {
		b := make([]byte, beginning)
		test.make(b)
		if got := smallestBlock(b, disk); got != test.want {
			t.Errorf("%s: %d, not %d", name, got, test.want)
		}
	}
	// And as mkfs makes them.
	for _, blocks := range []string{"1024", "2048", "4096"} {
		image := filepath.Join(t.TempDir(), "image")
		if err := os.WriteFile(image, make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := exec.LookPath("mkfs.ext4"); err != nil {
			t.Skip("mkfs.ext4 is not installed (package e2fsprogs)")
		}
		if out, err := exec.Command("mkfs.ext4", "-q", "-b", blocks, image).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		b, err := os.ReadFile(image)
		if err != nil {
			t.Fatal(err)
		}
		if got := smallestBlock(b[:beginning], 1<<20); strconv.Itoa(got) != blocks {
			t.Errorf("ext4 of %s: %d", blocks, got)
		}
	}
}

// putTable puts an MBR with partitions there, of each its start and length in blocks.
func putTable(b []byte, partitions ...uint32) {
	b[510], b[511] = 0x55, 0xaa
	for i := range len(partitions) / 2 {
		e := b[446+16*i:]
		e[4] = 0x83
		binary.LittleEndian.PutUint32(e[8:], partitions[2*i])
		binary.LittleEndian.PutUint32(e[12:], partitions[2*i+1])
	}
}
