// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twinbd/twinbd/tests/harness"
)

// image makes a file of random bytes with holes in it.
func image(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.raw")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	random := rand.NewChaCha8([32]byte{7})
	for offset := int64(0); offset < size; offset += 3 << 20 {
		p := make([]byte, min(1<<20, size-offset))
		random.Read(p)
		if _, err := f.WriteAt(p, offset); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func TestNbdinfo(t *testing.T) {
	harness.Need(t, "nbdinfo")
	lab := harness.NewPair(t, harness.Options{})
	uri := lab.Alpha.URI(data)

	var info struct {
		Exports []struct {
			Name     string   `json:"export-name"`
			Size     int64    `json:"export-size"`
			Contexts []string `json:"contexts"`
			ReadOnly bool     `json:"is_read_only"`
			Flush    bool     `json:"can_flush"`
			FUA      bool     `json:"can_fua"`
			Multi    bool     `json:"can_multi_conn"`
			Trim     bool     `json:"can_trim"`
			Zero     bool     `json:"can_zero"`
			FastZero bool     `json:"can_fast_zero"`
			Cache    bool     `json:"can_cache"`
			DF       bool     `json:"can_df"`
			Minimum  int64    `json:"block_size_minimum"`
			Prefers  int64    `json:"block_size_preferred"`
		} `json:"exports"`
	}
	if err := json.Unmarshal([]byte(harness.MustRun(t, "nbdinfo", "--json", uri)), &info); err != nil || len(info.Exports) != 1 {
		t.Fatalf("nbdinfo --json: %v, %+v", err, info)
	}
	e := info.Exports[0]
	if e.Name != data || e.Size != lab.Size() || e.ReadOnly || !e.Flush || !e.FUA || !e.Multi || !e.Trim || !e.Zero || !e.FastZero ||
		!e.Cache || !e.DF || e.Minimum != 1 || e.Prefers != 4096 || strings.Join(e.Contexts, " ") != "base:allocation twinbd:dirty" {
		t.Errorf("nbdinfo sees %+v", e)
	}
	list := harness.MustRun(t, "nbdinfo", "--list", uri)
	if !strings.Contains(list, `export="data"`) {
		t.Errorf("nbdinfo --list does not name the export:\n%s", list)
	}
	for map_, want := range map[string]string{"base:allocation": "hole,zero", "twinbd:dirty": "0"} {
		out := harness.MustRun(t, "nbdinfo", "--map="+map_, uri)
		if !strings.Contains(out, want) {
			t.Errorf("nbdinfo --map=%s of an empty volume does not say %q:\n%s", map_, want, out)
		}
	}

	// libnbd shows a server's words only when it is asked to.
	out := harness.Run(t, "env", "LIBNBD_DEBUG=1", "nbdinfo", lab.Beta.URI(data))
	if out.Code == 0 || !strings.Contains(out.Stderr, "this node is secondary; alpha serves this volume") {
		t.Errorf("nbdinfo at the secondary: %s", out)
	}
}

// An image goes in and comes out, with many connections, and both disks have it.
func TestNbdcopy(t *testing.T) {
	harness.Need(t, "nbdcopy")
	lab := harness.NewPair(t, harness.Options{})
	from, back := image(t, lab.Size()), filepath.Join(t.TempDir(), "back.raw")
	harness.MustRun(t, "nbdcopy", "--connections=4", "--flush", from, lab.Alpha.URI(data))
	harness.MustRun(t, "nbdcopy", "--connections=4", lab.Alpha.URI(data), back)
	want := harness.Checksum(t, from, 0)
	for _, path := range []string{back, lab.Alpha.Disk(data), lab.Beta.Disk(data)} {
		if got := harness.Checksum(t, path, lab.Size()); got != want {
			t.Errorf("%s has checksum %s, want %s", path, got, want)
		}
	}
}

func TestQemuImg(t *testing.T) {
	harness.Need(t, "qemu-img")
	lab := harness.NewPair(t, harness.Options{TCP: true, Thin: true})
	from := image(t, lab.Size())
	uri := lab.Alpha.URI(data)
	harness.MustRun(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", from, uri)
	harness.MustRun(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", from, uri)
	for _, n := range lab.Nodes() { // qemu-img itself respects the lock of a disk in use
		if harness.Checksum(t, n.Disk(data), 0) != harness.Checksum(t, from, 0) {
			t.Errorf("the disk of %s is not the image", n.Name)
		}
	}
	put(t, lab.Alpha.Dial(t, data), 5<<20, pattern(1, 512))
	if out := harness.Run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", from, uri); out.Code != 1 {
		t.Errorf("qemu-img sees no difference after a write: %s", out)
	}
	out := harness.Run(t, "qemu-img", "info", lab.Beta.URI(data))
	if out.Code == 0 || !strings.Contains(out.Stderr, "this node is secondary; alpha serves this volume") {
		t.Errorf("qemu-img at the secondary: %s", out)
	}
}

func TestQemuIO(t *testing.T) {
	harness.Need(t, "qemu-io")
	lab := harness.NewPair(t, harness.Options{})
	commands := []string{
		"write -P 0x11 0 1M", "write -f -P 0x22 1M 64k", // with FUA
		"write -P 0x33 1234567 7654", "flush",
		"write -z 64k 64k", "write -z -u 256k 64k", // keeping the space; giving it up
		"discard 512k 128k",
		"read -P 0x11 0 64k", "read -P 0 64k 64k", "read -P 0 256k 64k", "read -P 0 512k 128k",
		"read -P 0x22 1M 64k", "read -P 0x33 1234567 7654", "read -P 0 1234559 8",
		"aio_write -P 0x44 8M 1M", "aio_write -P 0x55 9M 1M", "aio_flush", "read -P 0x44 8M 1M", "read -P 0x55 9M 1M",
	}
	argv := []string{"qemu-io", "-f", "raw"}
	for _, c := range commands {
		argv = append(argv, "-c", c)
	}
	out := harness.Run(t, append(argv, lab.Alpha.URI(data))...)
	if out.Code != 0 || strings.Contains(out.Stdout+out.Stderr, "fail") {
		t.Errorf("qemu-io: %s", out)
	}
	beyond := fmt.Sprintf("write %d 4096", lab.Size())
	if out := harness.Run(t, "qemu-io", "-f", "raw", "-c", beyond, lab.Alpha.URI(data)); !strings.Contains(out.Stdout+out.Stderr, "failed") {
		t.Errorf("a write beyond the end was taken: %s", out)
	}
}

// fio writes from several connections, flushes, and reads back what it wrote.
func TestFioVerify(t *testing.T) {
	harness.Need(t, "fio")
	lab := harness.NewPair(t, harness.Options{Size: 64 << 20})
	harness.MustRun(t, "fio", "--minimal", "--ioengine=nbd", "--uri="+lab.Alpha.URI(data),
		"--name=verify", "--rw=randwrite", "--bsrange=512-64k", "--bs_unaligned", "--blockalign=512", "--size=16M", "--offset_increment=16M",
		"--numjobs=4", "--thread", "--iodepth=16", "--fsync=64", "--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--randseed=7")
	lab.SameDisks(t)
}
