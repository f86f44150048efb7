// SPDX-License-Identifier: Apache-2.0

package block_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/internal/block/blocktest"
	"golang.org/x/sys/unix"
)

// run runs a command to its end and returns what it said.
func run(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// loopDevice makes a block device of size bytes, and returns its path and that
// of the file behind it.
func loopDevice(t testing.TB, size int64) (device, backing string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a loop device needs root")
	}
	backing = filepath.Join(t.TempDir(), "backing")
	must(t, block.CreateFile(backing, size, true))
	device, err := run("losetup", "--find", "--show", backing)
	if err != nil {
		t.Skipf("no loop device: %v", err)
	}
	t.Cleanup(func() {
		if _, err := run("losetup", "--detach", device); err != nil {
			t.Error(err)
		}
	})
	return device, backing
}

func openDevice(t testing.TB, device string) block.Disk {
	t.Helper()
	d, err := block.Open(device, block.OpenOptions{})
	must(t, err)
	return d
}

func TestDeviceContract(t *testing.T) {
	blocktest.Contract(t, func(t testing.TB) block.Disk {
		device, _ := loopDevice(t, 2<<20)
		return openDevice(t, device)
	})
}

func TestDeviceIsOpenedForOneOnly(t *testing.T) {
	device, backing := loopDevice(t, 2<<20)
	d := openDevice(t, device)
	_, err := block.Open(device, block.OpenOptions{})
	says(t, err, device, "in use by this process")
	if !errors.Is(err, block.ErrInUse) {
		t.Errorf("%v is not ErrInUse", err)
	}
	said, end := child(t, device)
	end()
	if want := fmt.Sprintf("in use by another process (pid %d, ", os.Getpid()); !strings.Contains(said, want) {
		t.Errorf("the other process was told %q", said)
	}
	must(t, d.Close())

	said, end = child(t, device)
	if said != "open\n" {
		t.Errorf("after Close another process was told %q", said)
	}
	end()

	_, err = block.Open(backing, block.OpenOptions{})
	says(t, err, backing, "in use", "content of "+device, "losetup -d")
	_, err = block.Open(device, block.OpenOptions{MinSize: 3 << 20})
	says(t, err, device, "too small", "2 MiB", "3 MiB")
}

func TestMountedDeviceIsRefused(t *testing.T) {
	device, _ := loopDevice(t, 4<<20)
	if _, err := run("mkfs.ext4", "-q", device); err != nil {
		t.Skipf("no file system to mount: %v", err)
	}
	d := openDevice(t, device)
	if found, err := block.Signature(d); found != "ext4" || err != nil {
		t.Errorf("on an ext4 file system: %q, %v", found, err)
	}
	must(t, d.Close())

	at := filepath.Join(t.TempDir(), "a mount point")
	must(t, os.Mkdir(at, 0o700))
	if err := unix.Mount(device, at, "ext4", 0, ""); err != nil {
		t.Skipf("not mounted: %v", err)
	}
	_, err := block.Open(device, block.OpenOptions{})
	must(t, unix.Unmount(at, 0))
	says(t, err, device, "in use: mounted at "+at)
	must(t, openDevice(t, device).Close())
}

func TestSwapIsRefused(t *testing.T) {
	device, _ := loopDevice(t, 4<<20)
	if _, err := run("mkswap", device); err != nil {
		t.Skipf("no swap space: %v", err)
	}
	d := openDevice(t, device)
	if found, err := block.Signature(d); found != "swap space" || err != nil {
		t.Errorf("on swap space: %q, %v", found, err)
	}
	must(t, d.Close())
	if _, err := run("swapon", device); err != nil {
		t.Skipf("swap space is not to be had here: %v", err)
	}
	_, err := block.Open(device, block.OpenOptions{})
	if _, offErr := run("swapoff", device); offErr != nil {
		t.Error(offErr)
	}
	says(t, err, device, "in use as swap space", "swapoff "+device)
}

func TestDeviceIdentity(t *testing.T) {
	device, backing := loopDevice(t, 2<<20)
	other, _ := loopDevice(t, 2<<20)
	id := func(path string) string {
		d := openDevice(t, path)
		defer d.Close()
		id, err := block.DiskID(d)
		must(t, err)
		return id
	}
	first, second := id(device), id(other)
	if !strings.HasPrefix(first, "device:loop-file:") || !strings.HasSuffix(first, ":2097152") || first == second {
		t.Errorf("two devices are %q and %q", first, second)
	}
	link := filepath.Join(filepath.Dir(backing), "link")
	must(t, os.Symlink(device, link))
	if again := id(link); again != first {
		t.Errorf("under another name %q is %q", first, again)
	}
}

func TestOtherSpecialFilesAreRefused(t *testing.T) {
	_, err := block.Open("/dev/null", block.OpenOptions{})
	says(t, err, "/dev/null", "neither a file nor a block device")
	fifo := filepath.Join(t.TempDir(), "fifo")
	must(t, unix.Mkfifo(fifo, 0o600))
	_, err = block.Open(fifo, block.OpenOptions{}) // and does not wait for a writer
	says(t, err, fifo, "neither a file nor a block device")
}
