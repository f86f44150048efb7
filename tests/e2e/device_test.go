// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twinbd/twinbd/tests/harness"
)

// loopDevice makes a block device of a file of that size.
func loopDevice(t *testing.T, size int64) (device, file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "backing")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	truncate(t, file, size)
	device = strings.TrimSpace(harness.MustRun(t, "losetup", "--find", "--show", file))
	t.Cleanup(func() { harness.MustRun(t, "losetup", "--detach", device) })
	return device, file
}

// onDevice is a lab whose alpha has a block device for a disk, and beta a file.
func onDevice(t *testing.T, device string) *harness.Lab {
	t.Helper()
	lab := harness.NewLab(t, harness.Options{})
	text := strings.Replace(lab.Config(), fmt.Sprintf("disk = %q", filepath.Join(lab.Dir, "{node}", "data.img")),
		fmt.Sprintf("disk = { alpha = %q, beta = %q }", device, lab.Beta.Disk(data)), 1)
	lab.WriteConfig(t, text)
	// What compares disks looks where the file would be.
	if err := os.Symlink(device, lab.Alpha.Disk(data)); err != nil {
		t.Fatal(err)
	}
	return lab
}

// A block device on one node and a file on the other: its metadata is behind the
// data, and while it is served nobody else can have it.
func TestBlockDevice(t *testing.T) {
	harness.NeedRoot(t)
	harness.Need(t, "losetup", "mkfs.ext4")
	device, _ := loopDevice(t, 33<<20)
	lab := onDevice(t, device)
	lab.Alpha.MustRun(t, "create", "--blank")
	lab.Beta.MustRun(t, "create", "--blank")
	lab.Start(t)
	lab.Alpha.MustRun(t, "prim", harness.Service)
	lab.WaitPaired(t, lab.Alpha)
	c := lab.Alpha.Dial(t, data)
	put(t, c, 0, pattern(1, 1<<20))
	if out := harness.Run(t, "mkfs.ext4", "-q", device); out.Code == 0 || !strings.Contains(out.Stderr, "in use") {
		t.Errorf("mkfs on a disk in use: %s", out)
	}
	lab.Alpha.MustRun(t, "inspect")
	lab.Beta.Kill(t)
	put(t, c, 2<<20, pattern(2, 1<<20))
	lab.Beta.Start(t)
	lab.WaitPaired(t, lab.Alpha)
	lab.SameDisks(t)
	lab.Alpha.Kill(t)
	lab.Beta.WaitServing(t)
	put(t, lab.Beta.Dial(t, data), 4<<20, pattern(3, 1<<20))
	lab.Alpha.Start(t)
	lab.WaitPaired(t, lab.Beta)
	lab.SameDisks(t)
}

// A device that is too small, mounted, or somebody's, is left alone.
func TestBlockDeviceRefused(t *testing.T) {
	harness.NeedRoot(t)
	harness.Need(t, "losetup", "mkfs.ext4", "mount")
	t.Run("small", func(t *testing.T) {
		device, file := loopDevice(t, 32<<20) // no room for metadata
		lab := onDevice(t, device)
		check := harness.Unchanged(t, file)
		lab.Alpha.Refused(t, []string{"create"}, device)
		check()
	})
	t.Run("mounted", func(t *testing.T) {
		device, file := loopDevice(t, 64<<20)
		harness.MustRun(t, "mkfs.ext4", "-q", device)
		lab := onDevice(t, device)
		_, unmount := mount(t, device)
		for _, args := range [][]string{{"create"}, {"create", "--keep"}, {"create", "--anew"}, {"serve"}} {
			lab.Alpha.Refused(t, args, device, "mounted")
		}
		unmount()
		check := harness.Unchanged(t, file)
		lab.Alpha.Refused(t, []string{"create"}, "ext4", "--keep adopts it with its data")
		check()
	})
	t.Run("missing", func(t *testing.T) {
		lab := harness.NewLab(t, harness.Options{Disk: "/dev/disk/by-id/none-of-{node}"})
		lab.Alpha.Refused(t, []string{"create"}, "there is no device /dev/disk/by-id/none-of-alpha", "names do not change")
	})
}

// Where there is no space for a whole disk, none is half made.
func TestDiskFull(t *testing.T) {
	harness.NeedRoot(t)
	harness.Need(t, "mount")
	full := t.TempDir()
	harness.MustRun(t, "mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", full)
	t.Cleanup(func() { harness.MustRun(t, "umount", full) })
	lab := harness.NewLab(t, harness.Options{Disk: filepath.Join(full, "{node}.img")})
	lab.Alpha.Refused(t, []string{"create"}, "needs 32 MiB, 8 MiB are free", "make room, choose another place")
	left, err := os.ReadDir(full)
	if err != nil || len(left) != 0 {
		t.Errorf("a create that was refused left %v (%v)", left, err)
	}
}
