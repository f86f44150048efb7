// SPDX-License-Identifier: Apache-2.0

package application

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestParseMounts(t *testing.T) {
	got := parseMounts(`22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/root rw
36 22 43:0 / /mnt/a\040b\134 rw - ext4 /dev/nbd0 rw,errors=remount-ro
37 22 0:45 /sub /mnt/c rw shared:2 master:1 - btrfs /dev/nbd1 rw
nonsense
38 22
`)
	want := []mountEntry{
		{"254:1", "/", "/", "ext4", "/dev/root"},
		{"43:0", "/", `/mnt/a b\`, "ext4", "/dev/nbd0"},
		{"0:45", "/sub", "/mnt/c", "btrfs", "/dev/nbd1"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v", got)
	}
	for text, want := range map[string]string{`a\`: `a\`, `a\04`: `a\04`, `a\999b`: `a\999b`, `\011`: "\t"} {
		if got := unescape(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestFsckStatus(t *testing.T) {
	f := Fsck{Device: "/dev/nbd0", Type: "ext4"}
	for status, want := range map[int]string{
		1:      "",
		2:      "reboot this node",
		3:      "reboot this node",
		4:      "not safe to repair without a human",
		6:      "not safe to repair without a human",
		8:      "is there an ext4 file system on it?",
		8 | 4:  "not safe to repair without a human",
		16:     "cannot be checked",
		32 | 1: "was interrupted",
		127:    "cannot be checked",
		128:    "cannot be checked",
	} {
		err := f.explain(&CommandError{Name: "file system check", Outcome: Exited, Status: status})
		if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("status %d: %v, want %s", status, err, want)
		}
	}
	for _, kind := range []string{"xfs", "btrfs", "f2fs", ""} {
		if (Fsck{Type: kind}).Step("check").Up != nil {
			t.Errorf("%s is checked", kind)
		}
	}
}

// loopDevice is an ext4 file system on a device of its own, and where to mount it.
func loopDevice(t *testing.T) (device, at string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a file system on a loop device takes root")
	}
	dir := t.TempDir()
	image := filepath.Join(dir, "image")
	at = filepath.Join(dir, "a place")
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 16<<20); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("mkfs.ext4", "-q", image).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip("mkfs.ext4 is not installed (package e2fsprogs)")
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err = exec.Command("losetup", "--find", "--show", image).Output()
	if err != nil {
		t.Skipf("no loop device can be had here: %v", err)
	}
	device = string(bytes.TrimSpace(out))
	t.Cleanup(func() {
		if _, mounted, _ := mountedFrom(device); mounted {
			t.Error("still mounted at the end of the test")
			_ = exec.Command("umount", "-l", at).Run()
		}
		if out, err := exec.Command("losetup", "-d", device).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	return device, at
}

// fileSystem is a service that is a file system and nothing else.
func fileSystem(t *testing.T) (a *Application, r *Runner, device, at string) {
	t.Helper()
	device, at = loopDevice(t)
	r = newRunner(t, "")
	a = New(Config{Steps: []Step{
		Fsck{Runner: r, Device: device, Type: "ext4"}.Step("check data"),
		Mount{Runner: r, Device: device, At: at, Type: "ext4", Options: "noatime"}.Step("mount data"),
	}})
	return a, r, device, at
}

func up(t *testing.T, a *Application) {
	t.Helper()
	term, err := a.Begin(t.Context(), 1, "told to")
	if err != nil {
		t.Fatal(err)
	}
	if err := term.Up(); err != nil {
		t.Fatal(err)
	}
}

func TestFileSystem(t *testing.T) {
	a, r, device, at := fileSystem(t)
	if err := a.Down(t.Context(), 1, "nothing is up", Clean); err != nil {
		t.Error(err)
	}
	if err := a.Down(t.Context(), 1, "nothing is up", Forced); err != nil {
		t.Error(err)
	}
	up(t, a)
	if err := os.WriteFile(filepath.Join(at, "file"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	// The daemon was restarted, and finds everything up.
	again := New(Config{Steps: a.config.Steps})
	up(t, again)
	elsewhere := Mount{Runner: r, Device: "/dev/null", At: at, Type: "ext4"}
	if err := elsewhere.mount(t.Context(), Order{}); err == nil || err.Error() != fmt.Sprintf("%s is mounted at %s already; hint: umount %s", device, at, at) {
		t.Error(err)
	}
	if err := elsewhere.unmount(t.Context(), Order{}); err != nil {
		t.Errorf("undoing what is another's: %v", err)
	}
	if state, _, _ := (Mount{Device: device, At: at}).look(); state != ours {
		t.Fatal("undid what is another's")
	}
	if err := again.Down(t.Context(), 1, "told to", Clean); err != nil {
		t.Error(err)
	}
	out, err := exec.Command("fsck.ext4", "-fn", device).CombinedOutput()
	if err != nil {
		t.Errorf("not clean afterwards: %s", out)
	}
}

func TestBusyFileSystem(t *testing.T) {
	for name, script := range map[string]string{
		"working directory": `cd "$AT" && exec sleep $D`,
		"open file":         `exec sleep $D 3>"$AT/file"`,
		"program":           `cp "$(command -v sleep)" "$AT/sleep" && exec "$AT/sleep" $D`,
	} {
		t.Run(name, func(t *testing.T) {
			a, r, device, at := fileSystem(t)
			up(t, a)
			holder := strings.NewReplacer("$AT", at, "$D", duration()).Replace(script)
			// As another daemon's: it is not found as one of the service's commands.
			cmd := exec.Command("sh", "-c", holder)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			who := fmt.Sprintf("sleep (%d)", cmd.Process.Pid)
			until(t, "the file system is in use", func() bool {
				return strings.Contains(list(Mount{Runner: r, Device: device, At: at}.users()), who)
			})
			err := a.Down(t.Context(), 1, "told to", Clean)
			if err == nil || !strings.Contains(err.Error(), at+" is in use by "+who) {
				t.Error(err)
			}
			if err := a.Down(t.Context(), 2, "beta holds it", Forced); err != nil {
				t.Error(err)
			}
			if err := <-ended; err == nil || err.Error() != "signal: killed" {
				t.Errorf("the holder ended with %v", err)
			}
		})
	}
}

// What no process holds is said as such.
func TestMountBelow(t *testing.T) {
	a, r, device, at := fileSystem(t)
	up(t, a)
	below := filepath.Join(at, "below")
	if err := os.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "none", below).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	m := Mount{Runner: r, Device: device, At: at, Type: "ext4"}
	err := m.unmount(t.Context(), Order{})
	if err == nil || !strings.Contains(err.Error(), "no process is seen to use it") {
		t.Error(err)
	}
	if err := a.Down(t.Context(), 2, "beta holds it", Forced); err != nil {
		t.Error(err)
	}
}

func TestDamagedFileSystem(t *testing.T) {
	a, _, device, at := fileSystem(t)
	if err := os.WriteFile(device, bytes.Repeat([]byte{0x5a}, 1<<20), 0); err != nil {
		t.Fatal(err)
	}
	term, err := a.Begin(t.Context(), 1, "told to")
	if err != nil {
		t.Fatal(err)
	}
	err = term.Up()
	if err == nil || !strings.HasPrefix(err.Error(), "start: check data: "+device+" cannot be checked: file system check (\"fsck.ext4 -p "+device+"\") exited with status 8") || strings.Contains(err.Error(), "\n") {
		t.Error(err)
	}
	if state, _, _ := (Mount{Device: device, At: at}).look(); state != free {
		t.Error("mounted nevertheless")
	}
}

func TestMountRefuses(t *testing.T) {
	r := newRunner(t, "")
	at := filepath.Join(t.TempDir(), "missing")
	err := Mount{Runner: r, Device: "/dev/null", At: at, Type: "ext4"}.mount(t.Context(), Order{})
	expect(t, "no place", fmt.Sprint(err), at+" is no directory to mount at; hint: mkdir -p "+at)
}

// Who has a device open is found, named and ended; who has a file of it is not.
func TestDeviceUsers(t *testing.T) {
	name, at := loopDevice(t)
	d := Device(name)
	if got, err := d.MountedAt(); got != "" || err != nil {
		t.Errorf("mounted at %q: %v", got, err)
	}
	if out, err := exec.Command("mount", name, at).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	defer exec.Command("umount", at).Run()
	if got, err := d.MountedAt(); got != at || err != nil {
		t.Errorf("mounted at %q: %v", got, err)
	}
	if got := d.Users(); got != "" {
		t.Errorf("used by %s", got)
	}
	killsUser(t, d, name)
	if got := d.Users(); got != "" {
		t.Errorf("still used by %s", got)
	}
	if err := Device(at).Kill(t.Context()); err == nil {
		t.Error("a directory was taken for a device")
	}
}

// A partition belongs to its device: who has that mounted or open is told.
func TestPartitionUsers(t *testing.T) {
	name, at := loopDevice(t)
	partition := name + "p1"
	script := "echo start=2048 | sfdisk --quiet --wipe always " + name + " && partx --update " + name
	if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
		t.Skipf("no partitions can be had here: %v: %s", err, out)
	}
	defer exec.Command("partx", "--delete", name).Run()
	if _, err := os.Stat(partition); err != nil {
		t.Skipf("no partitions can be had here: %v", err)
	}
	if out, err := exec.Command("sh", "-c", "mkfs.ext4 -q "+partition+" && mount "+partition+" '"+at+"'").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	d := Device(name)
	if got, err := d.MountedAt(); got != at || err != nil {
		t.Errorf("mounted at %q: %v", got, err)
	}
	if out, err := exec.Command("umount", at).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	killsUser(t, d, partition)
}

// killsUser holds that a process which has a file open is a user of the device, and is
// ended with its users.
func killsUser(t *testing.T, d Device, path string) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	holder := exec.Command("sleep", duration())
	holder.Stdin = file
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	file.Close() // or the test would be one itself
	if got, want := d.Users(), fmt.Sprintf("sleep (%d)", holder.Process.Pid); got != want {
		t.Errorf("used by %s, not %s", got, want)
	}
	go holder.Wait()
	if err := d.Kill(t.Context()); err != nil {
		t.Error(err)
	}
}
