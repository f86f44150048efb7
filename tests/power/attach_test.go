// SPDX-License-Identifier: Apache-2.0

//go:build linux

package power

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/twinbd/twinbd/tests/harness"
)

// patience is how long something may take that takes a moment.
const patience = 60 * time.Second

// device is an NBD export as a block device of this machine, without a driver for
// NBD in the kernel: nbdfuse shows the export as a file, and a loop device with
// direct I/O the file as a device. Flushes of the device are flushes of the export,
// and the device's pages are the only ones that the kernel has of it.
type device struct {
	name  string // "/dev/loop7"
	file  string
	ended chan error // of nbdfuse
	fuse  *exec.Cmd
	at    string // where it is mounted, or ""
}

// attach makes a device of the export, by way of a file that must not be there.
func attach(t testing.TB, file, uri string) *device {
	t.Helper()
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d := &device{file: file, ended: make(chan error, 1), fuse: exec.Command("nbdfuse", file, uri)}
	var said strings.Builder
	d.fuse.Stderr = &said
	if err := d.fuse.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { d.ended <- d.fuse.Wait() }()
	harness.WaitFor(t, "nbdfuse to show "+uri, patience, func() error {
		select {
		case err := <-d.ended:
			d.ended <- err
			t.Fatalf("nbdfuse of %s: %v\n%s", uri, err, said.String())
		default:
		}
		info, err := os.Stat(file)
		if err == nil && info.Size() == 0 {
			err = errors.New("it is empty yet")
		}
		return err
	})
	d.name = strings.TrimSpace(harness.MustRun(t, "losetup", "--find", "--show", "--direct-io=on", file))
	return d
}

// mount mounts the device's file system.
func (d *device) mount(t testing.TB, at string) {
	t.Helper()
	if err := os.MkdirAll(at, 0o755); err != nil {
		t.Fatal(err)
	}
	harness.MustRun(t, "mount", d.name, at)
	d.at = at
}

// detach undoes mount and attach, whether the export is there still or not. Without
// it everything that the kernel had not written is gone.
func (d *device) detach(t testing.TB) {
	t.Helper()
	if d.at != "" {
		unmount(t, d.at)
		d.at = ""
	}
	if d.name != "" {
		harness.MustRun(t, "losetup", "--detach", d.name)
		d.name = ""
	}
	unmount(t, d.file)
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case <-d.ended: // it complains when its server is gone
	case <-timeout.C:
		_ = d.fuse.Process.Kill()
		t.Errorf("nbdfuse of %s did not end", d.file)
	}
	if err := os.Remove(d.file); err != nil {
		t.Error(err)
	}
}

// unmount unmounts as soon as nobody holds it any more: a loop device that was just
// closed takes a moment.
func unmount(t testing.TB, at string) {
	t.Helper()
	harness.WaitFor(t, "umount of "+at, patience, func() error {
		if out := harness.Run(t, "umount", at); out.Code != 0 {
			return fmt.Errorf("umount: %s", out)
		}
		return nil
	})
}
