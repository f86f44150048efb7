// SPDX-License-Identifier: Apache-2.0

package block_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/internal/block/blocktest"
)

// openInChild makes the test binary open a disk instead of running tests: the
// path is in this variable. It prints the error, or "open" and waits for the end
// of its input.
const openInChild = "BLOCK_TEST_OPEN"

func TestMain(m *testing.M) {
	path, child := os.LookupEnv(openInChild)
	if !child {
		os.Exit(m.Run())
	}
	d, err := block.Open(path, block.OpenOptions{})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("open")
	_, _ = io.Copy(io.Discard, os.Stdin)
	if err := d.Close(); err != nil {
		panic(err)
	}
}

// child is another process that has opened a disk, or has tried to.
func child(t *testing.T, path string) (said string, end func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), openInChild+"="+path)
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	line := make([]byte, 4096)
	n, _ := out.Read(line)
	return string(line[:n]), func() {
		_ = in.Close()
		_ = cmd.Wait()
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newFile makes a file and opens it.
func newFile(t testing.TB, size int64, thin bool) (string, block.Disk) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	must(t, block.CreateFile(path, size, thin))
	d, err := block.Open(path, block.OpenOptions{MinSize: size})
	must(t, err)
	return path, d
}

func TestFileContract(t *testing.T) {
	for _, thin := range []bool{false, true} {
		t.Run(fmt.Sprintf("thin=%t", thin), func(t *testing.T) {
			blocktest.Contract(t, func(t testing.TB) block.Disk {
				_, d := newFile(t, 2<<20+777, thin)
				return d
			})
		})
	}
}

// says checks that an error is one line, with all of these words and a remedy.
func says(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, but one with %q was expected", words)
		return
	}
	text := err.Error()
	for _, word := range append(words, "; hint: ") {
		if !strings.Contains(text, word) {
			t.Errorf("%q does not say %q", text, word)
		}
	}
	if strings.Contains(text, "\n") {
		t.Errorf("%q is more than one line", text)
	}
	var h interface{ Hint() string }
	if !errors.As(err, &h) || h.Hint() == "" || strings.Count(text, "hint:") != 1 {
		t.Errorf("%q does not give its hint", text)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	small := filepath.Join(dir, "small")
	must(t, block.CreateFile(small, 1<<20, true))

	_, err := block.Open(small, block.OpenOptions{MinSize: 10 << 30})
	says(t, err, small, "too small", "1 MiB", "10 GiB")
	if !errors.Is(err, block.ErrTooSmall) {
		t.Errorf("%v is not ErrTooSmall", err)
	}
	d, err := block.Open(small, block.OpenOptions{MinSize: 1 << 20}) // the lock of the refused one is gone
	must(t, err)
	must(t, d.Close())

	_, err = block.Open(filepath.Join(dir, "none"), block.OpenOptions{})
	says(t, err, "none", "twinbd create")
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v is not ErrNotExist", err)
	}
	_, err = block.Open(dir, block.OpenOptions{})
	says(t, err, dir)
}

func TestLockExcludesThisProcess(t *testing.T) {
	path, d := newFile(t, 1<<20, true)
	_, err := block.Open(path, block.OpenOptions{})
	says(t, err, path, "in use by")
	if !errors.Is(err, block.ErrInUse) {
		t.Errorf("%v is not ErrInUse", err)
	}
	_, err = block.Open(path, block.OpenOptions{ReadOnly: true})
	says(t, err, path, "in use by")
	must(t, d.Close())

	first, err := block.Open(path, block.OpenOptions{ReadOnly: true})
	must(t, err)
	second, err := block.Open(path, block.OpenOptions{ReadOnly: true}) // two may look
	must(t, err)
	_, err = block.Open(path, block.OpenOptions{})
	says(t, err, path, "in use by")
	if err := second.WriteAt([]byte{1}, 0); block.StatusOf(err) != block.IOError {
		t.Errorf("a write to a disk opened for reading: %v", err)
	}
	must(t, first.Close())
	must(t, second.Close())
}

func TestLockExcludesOtherProcesses(t *testing.T) {
	path, d := newFile(t, 1<<20, true)
	said, end := child(t, path)
	end()
	if !strings.Contains(said, "in use by") || runtime.GOOS == "linux" && !strings.Contains(said, fmt.Sprintf("(pid %d, ", os.Getpid())) {
		t.Errorf("the other process was told %q", said)
	}
	must(t, d.Close())

	said, end = child(t, path)
	if said != "open\n" {
		t.Errorf("after Close another process was told %q", said)
	}
	_, err := block.Open(path, block.OpenOptions{})
	says(t, err, path, "in use by another process")
	end() // its lock ends with it
	d, err = block.Open(path, block.OpenOptions{})
	must(t, err)
	must(t, d.Close())
}

func TestCreateFileRefuses(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "disk")
	must(t, os.WriteFile(path, []byte("precious"), 0o600))
	says(t, block.CreateFile(path, 1<<20, false), path, "exists already")
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("what existed is now %q, %v", b, err)
	}

	path = filepath.Join(dir, "missing", "disk")
	says(t, block.CreateFile(path, 1<<20, false), path, "no directory "+filepath.Dir(path))

	path = filepath.Join(dir, "huge")
	err := block.CreateFile(path, 1<<60, false)
	says(t, err, path, "needs 1024 PiB", "are free on "+dir, "thin = true")
	if block.StatusOf(err) != block.NoSpace {
		t.Errorf("%v has the status %v", err, block.StatusOf(err))
	}
	for _, size := range []int64{0, -1} {
		if err := block.CreateFile(path, size, true); err == nil {
			t.Errorf("a file of %d bytes", size)
		}
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was left of it: %v", err)
	}
}

func TestStatusOf(t *testing.T) {
	for _, c := range []struct {
		err  error
		want block.Status
	}{
		{nil, block.OK},
		{syscall.ENOSPC, block.NoSpace},
		{fmt.Errorf("write: %w", syscall.ENOSPC), block.NoSpace},
		{&os.PathError{Op: "write", Err: syscall.EDQUOT}, block.NoSpace},
		{syscall.ENOMEM, block.NoMemory},
		{syscall.EIO, block.IOError},
		{syscall.EINVAL, block.IOError}, // the disk's, not the client's
		{io.ErrUnexpectedEOF, block.IOError},
		{errors.New("anything"), block.IOError},
		{block.ShuttingDown, block.ShuttingDown},
		{fmt.Errorf("step: %w", block.NotSupported), block.NotSupported},
		{errors.Join(errors.New("step"), block.Invalid), block.Invalid},
	} {
		if got := block.StatusOf(c.err); got != c.want {
			t.Errorf("%v: %v, not %v", c.err, got, c.want)
		}
	}
}
