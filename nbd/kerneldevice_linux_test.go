// SPDX-License-Identifier: Apache-2.0

package nbd_test

import (
	"bytes"
	"errors"
	"flag"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twinbd/twinbd/nbd"
	"github.com/twinbd/twinbd/nbd/nbdtest"
)

var realDevice = flag.String("nbd.device", "", "a /dev/nbdN that nobody uses, of a kernel whose netlink family is not seen: tests/vm has one")

const deviceSize = 16 << 20

// realLab is a device of the kernel's on an engine in memory.
type realLab struct {
	t      *testing.T
	index  int
	driver nbd.Driver
	server *nbdtest.Server
	ours   net.Conn
	lost   chan error // gets nil when the device is
}

// attach attaches the device with a new connection.
func (l *realLab) attach() error {
	l.t.Helper()
	kernel, ours, err := nbd.SocketPair()
	if err != nil {
		l.t.Fatal(err)
	}
	defer kernel.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		l.t.Fatal(err)
	}
	ours.Close()
	l.ours = conn
	l.server.Start(&nbd.Negotiated{Conn: conn, Export: nbd.Export{Size: deviceSize}})
	return l.driver.Connect(nbd.Setup{
		Index: l.index, Size: deviceSize, BlockSize: nbd.KernelBlockSize, Flags: nbd.KernelFlags, Timeout: nbd.KernelTimeout, Backend: "test",
		Sockets: []int{int(kernel.Fd())},
	})
}

func (l *realLab) mustAttach() {
	l.t.Helper()
	if err := l.attach(); err != nil {
		l.t.Fatal(err)
	}
}

func (l *realLab) look() nbd.DeviceState {
	l.t.Helper()
	st, err := l.driver.Look(l.index)
	if err != nil {
		l.t.Fatal(err)
	}
	return st
}

// queue is a setting that the kernel shows.
func (l *realLab) queue(name string) string {
	l.t.Helper()
	text, err := os.ReadFile("/sys/block/" + strings.TrimPrefix(*realDevice, "/dev/") + "/" + name)
	if err != nil {
		l.t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// open opens the device past the page cache.
func (l *realLab) open() *os.File {
	l.t.Helper()
	f, err := os.OpenFile(*realDevice, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { f.Close() })
	return f
}

// aligned is memory for direct I/O.
func aligned(t *testing.T, content byte) []byte {
	t.Helper()
	p, err := unix.Mmap(-1, 0, 64<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(p) })
	copy(p, bytes.Repeat([]byte{content}, len(p)))
	return p
}

// flushes is how often the engine was told to flush.
func (l *realLab) flushes() (n int) {
	l.server.Do(func(e *nbdtest.Engine) { n = e.Flushes() })
	return n
}

// eventually waits for something.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(30 * time.Second); !is(); <-look.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// soon is the outcome of what must not wait.
func soon(t *testing.T, what string, outcome <-chan error) error {
	t.Helper()
	select {
	case err := <-outcome:
		return err
	case <-time.After(30 * time.Second):
		t.Fatalf("%s still waits after 30 s", what)
		return nil
	}
}

// waitingRead begins a read that the engine holds.
func (l *realLab) waitingRead(f *os.File) <-chan error {
	l.t.Helper()
	p := aligned(l.t, 0)
	l.server.Do(func(e *nbdtest.Engine) { e.Hold = true })
	outcome := make(chan error, 1)
	go func() {
		_, err := f.ReadAt(p, 0)
		outcome <- err
	}()
	eventually(l.t, "a read waits", func() (held bool) {
		l.server.Do(func(e *nbdtest.Engine) { held = len(e.Held()) > 0 })
		return held
	})
	return outcome
}

// goOn lets the engine answer again.
func (l *realLab) goOn() {
	l.server.Do(func(e *nbdtest.Engine) {
		e.Hold = false
		for len(e.Held()) > 0 {
			e.Release(0)
		}
	})
}

// A device of a real kernel is attached by ioctl, used, disconnected while somebody waits
// for it, attached again, and lost.
func TestIoctlDevice(t *testing.T) {
	if *realDevice == "" {
		t.Skip("needs -nbd.device: tests/vm has one")
	}
	index, err := nbd.DeviceIndex(*realDevice)
	if err != nil {
		t.Fatal(err)
	}
	driver, err := nbd.OpenKernel()
	if err != nil {
		t.Fatal(err)
	}
	if driver.Replaces() {
		t.Fatal("the netlink family is seen; run this in another network namespace")
	}
	engine := nbdtest.NewEngine(deviceSize)
	l := &realLab{t: t, index: index, driver: driver, server: nbdtest.NewServer(engine), lost: make(chan error, 1)}
	go driver.Watch(t.Context(), func(int) { l.lost <- nil })
	defer l.server.Close()
	defer driver.Disconnect(index)
	l.used()
	l.disconnected()
	l.dies()
}

// used: data goes both ways, with all that the flags promise.
func (l *realLab) used() {
	t := l.t
	if before := l.look(); before.Attached || before.Used || !before.There {
		t.Fatalf("the device looks %+v", before)
	}
	l.mustAttach()
	st := l.look()
	if !st.Attached || !st.Used || st.Backend != "test" || st.Size != deviceSize || st.Connections != 1 || st.PID != os.Getpid() {
		t.Errorf("attached, it looks %+v", st)
	}
	for name, want := range map[string]string{
		"queue/write_cache": "write back", "queue/fua": "1", "queue/logical_block_size": "4096", "ro": "0",
	} {
		if got := l.queue(name); got != want {
			t.Errorf("%s is %q, not %q", name, got, want)
		}
	}
	t.Logf("queue: %q", l.driver.Tune(l.index))
	first := l.ours
	if err := l.attach(); !errors.Is(err, nbd.ErrDeviceBusy) {
		t.Errorf("attached a second time: %v", err)
	}
	l.ours = first
	f := l.open()
	defer f.Close()
	p, back := aligned(t, 7), aligned(t, 0)
	if _, err := f.WriteAt(p, 1<<20); err != nil {
		t.Fatal(err)
	}
	before := l.flushes()
	if err := f.Sync(); err != nil || l.flushes() == before {
		t.Errorf("%d flushes: %v", l.flushes(), err)
	}
	if _, err := f.ReadAt(back, 1<<20); err != nil || !bytes.Equal(p, back) {
		t.Errorf("read something else: %v", err)
	}
	l.server.Do(func(e *nbdtest.Engine) {
		if !bytes.Equal(e.Data[1<<20:1<<20+len(p)], p) {
			t.Error("the engine has something else")
		}
	})
	before = l.flushes()
	if _, err := unix.Pwritev2(int(f.Fd()), [][]byte{p}, 2<<20, unix.RWF_DSYNC); err != nil || l.flushes() == before {
		t.Errorf("a durable write: %d flushes, %v", l.flushes(), err)
	}
	l.undisturbed(f, back)
}

// undisturbed: signals to its thread do not end the device.
func (l *realLab) undisturbed(f *os.File, p []byte) {
	t := l.t
	var thread int
	for _, digit := range l.queue("pid") {
		thread = 10*thread + int(digit-'0')
	}
	for range 10 {
		if err := errors.Join(unix.Tgkill(os.Getpid(), thread, unix.SIGURG), unix.Kill(os.Getpid(), unix.SIGURG)); err != nil {
			t.Fatal(err)
		}
		if _, err := f.ReadAt(p, 1<<20); err != nil {
			t.Fatalf("after a signal: %v", err)
		}
	}
}

// disconnected: what waits fails at once, also while somebody has the device open, and
// the next attachment has the data.
func (l *realLab) disconnected() {
	t := l.t
	f := l.open()
	outcome := l.waitingRead(f)
	began := time.Now()
	if err := l.driver.Disconnect(l.index); err != nil {
		t.Error(err)
	}
	if err := soon(t, "a read of what is disconnected", outcome); !errors.Is(err, unix.EIO) {
		t.Errorf("a read of what is disconnected: %v", err)
	}
	t.Logf("what waited failed after %v", time.Since(began).Round(time.Millisecond))
	if _, err := f.WriteAt(aligned(t, 9), 1<<20); err == nil {
		t.Error("a write to what is disconnected")
	}
	if st := l.look(); st.Attached || !st.Used {
		t.Errorf("open still, it looks %+v", st)
	}
	l.goOn()
	f.Close()
	eventually(t, "nobody uses it", func() bool { return !l.look().Used })
	l.mustAttach()
	f = l.open()
	defer f.Close()
	back := aligned(t, 0)
	if _, err := f.ReadAt(back, 1<<20); err != nil || !bytes.Equal(back, aligned(t, 7)) {
		t.Errorf("attached again, it has something else: %v", err)
	}
}

// dies: when its connection ends, so does the device, and who watches is told.
func (l *realLab) dies() {
	t := l.t
	if len(l.lost) > 0 {
		t.Error("a device is lost that was disconnected")
	}
	f := l.open()
	outcome := l.waitingRead(f)
	l.ours.Close()
	if err := soon(t, "the notice", l.lost); err != nil {
		t.Error(err)
	}
	if err := soon(t, "a read of what has died", outcome); !errors.Is(err, unix.EIO) {
		t.Errorf("a read of what has died: %v", err)
	}
	l.goOn()
	f.Close()
	eventually(t, "nobody uses it", func() bool { return !l.look().Used })
	if st := l.look(); st.Attached {
		t.Errorf("dead, it looks %+v", st)
	}
}
