// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/tests/harness"
)

// attach makes a block device of a node's export, without a driver in the kernel:
// nbdfuse shows it as a file, and the loop driver the file as a device.
func attach(t *testing.T, n *harness.Node) (device string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "export")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fuse := exec.Command("nbdfuse", file, n.URI(data))
	if err := fuse.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- fuse.Wait() }()
	t.Cleanup(func() {
		harness.Run(t, "umount", file)
		select {
		case err := <-ended:
			if err != nil && n.Running() { // it aborts when its server is gone
				t.Errorf("nbdfuse: %v", err)
			}
		case <-time.After(20 * time.Second):
			fuse.Process.Kill()
			t.Error("nbdfuse did not end")
		}
	})
	harness.WaitFor(t, "nbdfuse", 20*time.Second, func() error {
		info, err := os.Stat(file)
		if err == nil && info.Size() == 0 {
			err = errors.New("the file is empty yet")
		}
		return err
	})
	device = strings.TrimSpace(harness.MustRun(t, "losetup", "--find", "--show", "--direct-io=on", file))
	t.Cleanup(func() { harness.MustRun(t, "losetup", "--detach", device) })
	return device
}

// mount mounts a device until the function that it returns is called, or the test
// ends.
func mount(t *testing.T, device string) (at string, unmount func()) {
	t.Helper()
	at = t.TempDir()
	harness.MustRun(t, "mount", device, at)
	mounted := true
	unmount = func() {
		if mounted {
			mounted = false
			harness.MustRun(t, "umount", at)
		}
	}
	t.Cleanup(unmount)
	return at, unmount
}

// plant writes a tree of files.
func plant(t *testing.T, dir string) {
	t.Helper()
	for i := range 200 {
		path := filepath.Join(dir, fmt.Sprint(i%17), fmt.Sprint(i%5), fmt.Sprint("file", i))
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil {
			err = os.WriteFile(path, pattern(byte(i), 1+i*397), 0o644)
		}
		if err == nil && i%7 == 0 {
			err = os.Rename(path, path+".renamed")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// grown checks what plant has written.
func grown(t *testing.T, dir string) {
	t.Helper()
	for i := range 200 {
		path := filepath.Join(dir, fmt.Sprint(i%17), fmt.Sprint(i%5), fmt.Sprint("file", i))
		if i%7 == 0 {
			path += ".renamed"
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != string(pattern(byte(i), 1+i*397)) {
			t.Fatalf("%s is not what was written (%v)", path, err)
		}
	}
}

// A file system on the pair: written, unmounted, and clean on both disks; then,
// with the primary killed, mounted from the survivor.
func TestFileSystem(t *testing.T) {
	harness.NeedRoot(t)
	harness.Need(t, "nbdfuse", "losetup", "mkfs.ext4", "fsck.ext4", "mount")
	lab := harness.NewPair(t, harness.Options{Size: 128 << 20})

	t.Run("written", func(t *testing.T) {
		device := attach(t, lab.Alpha)
		harness.MustRun(t, "mkfs.ext4", "-q", device)
		at, unmount := mount(t, device)
		plant(t, at)
		lab.Beta.Kill(t) // in the middle of it
		plant(t, filepath.Join(at, "alone"))
		lab.Beta.Start(t)
		lab.WaitPaired(t, lab.Alpha)
		plant(t, filepath.Join(at, "again"))
		harness.MustRun(t, "fstrim", at)
		unmount()
	})
	t.Run("survivor", func(t *testing.T) {
		lab.Alpha.Kill(t)
		lab.Beta.WaitServing(t)
		at, unmount := mount(t, attach(t, lab.Beta))
		for _, dir := range []string{"", "alone", "again"} {
			grown(t, filepath.Join(at, dir))
		}
		plant(t, filepath.Join(at, "survived"))
		unmount()
		lab.Alpha.Start(t)
		lab.WaitPaired(t, lab.Beta)
	})
	lab.Beta.Stop(t)
	lab.Alpha.Stop(t)
	lab.SameDisks(t)
	for _, n := range lab.Nodes() {
		disk := filepath.Join(t.TempDir(), n.Name+".img")
		harness.MustRun(t, "cp", "--sparse=always", n.Disk(data), disk)
		if out := harness.Run(t, "fsck.ext4", "-fn", disk); out.Code != 0 {
			t.Errorf("fsck of the disk of %s: %s", n.Name, out)
		}
	}
}

// A power cut of the primary under a mounted file system leaves a disk on the
// survivor that its journal makes whole.
func TestFileSystemSurvivesTheLossOfThePrimary(t *testing.T) {
	harness.NeedRoot(t)
	harness.Need(t, "nbdfuse", "losetup", "mkfs.ext4", "fsck.ext4", "mount")
	lab := harness.NewPair(t, harness.Options{Size: 128 << 20})
	t.Run("written", func(t *testing.T) {
		device := attach(t, lab.Alpha)
		harness.MustRun(t, "mkfs.ext4", "-q", device)
		at, _ := mount(t, device)
		plant(t, at)
		harness.MustRun(t, "sync", "--file-system", at)
		plant(t, filepath.Join(at, "unsynced"))
		lab.Alpha.Kill(t)
	})
	lab.Beta.WaitState(t, control.Alone)
	at, _ := mount(t, attach(t, lab.Beta))
	grown(t, at)
}
