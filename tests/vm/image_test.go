// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vm

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// image is what machines boot from.
type image struct {
	kernel, initrd, root string
}

// buildLimit bounds the building of the root: a minute on a quiet machine.
const buildLimit = 10 * time.Minute

// made is the image, made once for all tests of a process.
var made = sync.OnceValues(makeImage)

// bootImage is what machines boot from; the first call on a machine builds it.
func bootImage(t testing.TB) image {
	t.Helper()
	i, err := made()
	if err != nil {
		t.Fatalf("make what the machines boot: %v", err)
	}
	return i
}

func makeImage() (i image, err error) {
	dir, err := cachedRoot()
	if err != nil {
		return i, err
	}
	i = image{kernel: filepath.Join(dir, "vmlinuz"), root: filepath.Join(dir, "root.img")}
	i.initrd, err = makeInitrd(dir)
	return i, err
}

// cachedRoot is the directory of a root that was built by the recipe as it is now.
// It knows nothing of our init, which comes with the initramfs, a matter of a second.
func cachedRoot() (string, error) {
	recipe, err := os.ReadFile("testdata/root")
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	cache = filepath.Join(cache, "twinbd-vm")
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return "", err
	}
	lock, err := os.Create(filepath.Join(cache, "lock"))
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil { // one builds, others wait for it
		return "", err
	}
	dir := filepath.Join(cache, fmt.Sprintf("%.16x", sha256.Sum256(recipe)))
	if _, err := os.Stat(dir); err != nil {
		if err := errors.Join(removeUnused(cache), build(dir)); err != nil {
			return "", err
		}
	}
	return dir, os.Chtimes(dir, time.Time{}, time.Now()) // it is in use
}

// unusedFor is how long nobody has used a root before it is removed. Other checkouts,
// with other recipes, use the same directory, perhaps at this moment.
const unusedFor = 14 * 24 * time.Hour

func removeUnused(cache string) error {
	entries, err := os.ReadDir(cache)
	for _, e := range entries {
		info, failed := e.Info()
		err = errors.Join(err, failed)
		if failed == nil && e.IsDir() && time.Since(info.ModTime()) > unusedFor {
			err = errors.Join(err, os.RemoveAll(filepath.Join(cache, e.Name())))
		}
	}
	return err
}

// build runs the recipe. What is in dir is whole, whenever this ends.
func build(dir string) error {
	began := time.Now()
	fmt.Fprintln(os.Stderr, "building the root of the machines; this happens once")
	part := dir + ".part"
	if err := errors.Join(os.RemoveAll(part), os.Mkdir(part, 0o700)); err != nil { // one may have been broken off
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), buildLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "testdata/root", part)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the root: %w\n%s", err, out)
	}
	fmt.Fprintf(os.Stderr, "built in %v\n", time.Since(began).Round(time.Second))
	return os.Rename(part, dir)
}

// makeInitrd makes an initramfs of our init and the kernel's modules.
func makeInitrd(dir string) (string, error) {
	temp, err := os.MkdirTemp(dir, "init")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	guest := filepath.Join(temp, "init")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", guest, "./guest")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build init: %w\n%s", err, out)
	}
	var archive bytes.Buffer
	add := func(name, from string, mode uint32) error {
		content, err := os.ReadFile(from)
		if err == nil {
			entry(&archive, name, mode, content)
		}
		return err
	}
	entry(&archive, "modules", syscall.S_IFDIR|0o755, nil)
	modules, err := os.ReadDir(filepath.Join(dir, "modules"))
	for _, m := range modules {
		err = errors.Join(err, add("modules/"+m.Name(), filepath.Join(dir, "modules", m.Name()), syscall.S_IFREG|0o644))
	}
	if err := errors.Join(err, add("init", guest, syscall.S_IFREG|0o755)); err != nil {
		return "", err
	}
	entry(&archive, "TRAILER!!!", 0, nil)
	// Other checkouts, with another init, may use the same directory at this moment.
	initrd := filepath.Join(dir, fmt.Sprintf("initrd-%.8x", sha256.Sum256(archive.Bytes())))
	if err := os.WriteFile(filepath.Join(temp, "initrd"), archive.Bytes(), 0o600); err != nil {
		return "", err
	}
	return initrd, os.Rename(filepath.Join(temp, "initrd"), initrd)
}

// entry appends a file to an archive as the kernel reads it: cpio, "newc".
func entry(archive *bytes.Buffer, name string, mode uint32, content []byte) {
	pad := func() {
		for archive.Len()%4 != 0 {
			archive.WriteByte(0)
		}
	}
	archive.WriteString("070701")
	for _, field := range []int{0, int(mode), 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0} {
		fmt.Fprintf(archive, "%08X", field)
	}
	archive.WriteString(name + "\x00")
	pad()
	archive.Write(content)
	pad()
}

// files are what a machine finds below its root when it has booted, by path.
type files map[string]file

type file struct {
	content []byte
	mode    int64
}

// write makes the disk from which the machine unpacks them.
func (f files) write(t testing.TB, path string) {
	t.Helper()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for name, one := range f {
		header := tar.Header{Name: strings.TrimPrefix(name, "/"), Mode: one.mode, Size: int64(len(one.content)), Typeflag: tar.TypeReg}
		if err := w.WriteHeader(&header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(one.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	archive.Write(make([]byte, 1<<20-archive.Len()%(1<<20))) // a disk has whole sectors
	if err := os.WriteFile(path, archive.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}
