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
		"MBR":       {func(b []byte) { b[510], b[511] = 0x55, 0xaa }, 512},
		"GPT":       {func(b []byte) { copy(b[512:], "EFI PART") }, 512},
		"LVM":       {func(b []byte) { copy(b[512:], "LABELONE") }, 512},
	} {
		b := make([]byte, 4096)
		test.make(b)
		if got := smallestBlock(b); got != test.want {
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
		if got := smallestBlock(b[:4096]); strconv.Itoa(got) != blocks {
			t.Errorf("ext4 of %s: %d", blocks, got)
		}
	}
}
