// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

// fakeIoctls is a driver of one device, /dev/nbd0, that notes what it is asked and does
// what the kernel's does, as far as it can be seen from outside.
type fakeIoctls struct {
	*ioctlKernel
	t     *testing.T
	fail  map[uint]error // by request
	claim bool           // somebody has the device to himself
	small bool           // it shows half of the size

	mu     sync.Mutex
	asked  []string
	block  int
	blocks int
	open   int // files
	held   int // ends
	cut7   bool
	dead   chan struct{} // closed when the first connection is
}

var ioctlNames = map[uint]string{
	ioctlSetSocket: "socket", ioctlSetBlockSize: "block size", ioctlSetSizeBlocks: "blocks", ioctlSetFlags: "flags",
	ioctlSetTimeout: "timeout", ioctlDoIt: "do it", ioctlClearQueue: "clear queue", ioctlClearSocket: "clear socket",
}

func newFakeIoctls(t *testing.T) *fakeIoctls {
	f := &fakeIoctls{t: t, fail: make(map[uint]error), dead: make(chan struct{})}
	f.ioctlKernel = &ioctlKernel{
		kernelFiles: fakeFiles(t, map[string]string{"dev": "43:0\n"}), kept: new(attachments),
		open: f.openFile, hold: f.holdEnd, calm: func(work func()) error { work(); return nil }, lives: func(int) bool { return false },
	}
	if err := os.WriteFile(f.node(0), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return f
}

type fakeFile struct{ *fakeIoctls }

func (f *fakeIoctls) openFile(_ string, alone bool) (deviceFile, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if alone && f.claim {
		return nil, ErrDeviceBusy
	}
	f.open++
	return fakeFile{f}, nil
}

func (f fakeFile) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open--
	return nil
}

func (f fakeFile) ioctl(request uint, value int) error {
	f.mu.Lock()
	f.asked = append(f.asked, fmt.Sprint(ioctlNames[request], " ", value))
	err := f.fail[request]
	switch {
	case err != nil:
	case request == ioctlSetBlockSize:
		f.block = value
	case request == ioctlSetSizeBlocks:
		f.blocks = value
	}
	f.mu.Unlock()
	if request == ioctlDoIt && err == nil {
		f.run()
	}
	return err
}

// run is what the driver does while the device is attached.
func (f *fakeIoctls) run() {
	sectors := f.block * f.blocks / 512
	if f.small {
		sectors /= 2
	}
	f.show(f.t, "pid", strconv.Itoa(os.Getpid())+"\n")
	f.show(f.t, "size", strconv.Itoa(sectors)+"\n")
	<-f.dead
	if err := errors.Join(os.Remove(f.path(0, "pid")), os.Remove(f.path(0, "size"))); err != nil {
		f.t.Error(err)
	}
}

type fakeHeld struct {
	*fakeIoctls
	number int
}

func (f *fakeIoctls) holdEnd(descriptor int) (kernelEnd, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held++
	return fakeHeld{f, descriptor}, nil
}

func (e fakeHeld) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.held--
	return nil
}

func (e fakeHeld) cut() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked = append(e.asked, fmt.Sprint("cut ", e.number))
	if e.number == 7 && !e.cut7 {
		e.cut7 = true
		close(e.dead)
	}
}

// done returns what was asked, and forgets it.
func (f *fakeIoctls) done() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	asked := f.asked
	f.asked = nil
	return asked
}

// nothingOpen holds that files and ends are closed.
func (f *fakeIoctls) nothingOpen(t *testing.T) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open != 0 || f.held != 0 {
		t.Errorf("%d files and %d ends are open still", f.open, f.held)
	}
}

func (f *fakeIoctls) setup() Setup {
	return Setup{Size: 1 << 30, BlockSize: 4096, Flags: KernelFlags, Timeout: KernelTimeout, Backend: "me", Sockets: []int{7}}
}

// What the driver is told, in which order: the claim first. The time limit is not the one
// that connections have which can be replaced.
func TestIoctlAttach(t *testing.T) {
	f := newFakeIoctls(t)
	if err := f.Connect(f.setup()); err != nil {
		t.Fatal(err)
	}
	want := []string{"socket 7", "block size 4096", "blocks 262144", "flags 365", "timeout 1728000", "do it 0"}
	if asked := f.done(); !slices.Equal(asked, want) {
		t.Errorf("asked %q\nwant  %q", asked, want)
	}
	got, err := f.Look(0)
	if want := (DeviceState{There: true, Used: true, Attached: true, Backend: "me", PID: os.Getpid(), Size: 1 << 30, Connections: 1}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("it looks %+v: %v", got, err)
	}
	if err := f.Reconfigure(f.setup()); !errors.Is(err, errNotReplaced) || f.Replaces() {
		t.Errorf("new connections: %v", err)
	}
	for range 2 { // the second time there is nothing to do
		if err := f.Disconnect(0); err != nil {
			t.Error(err)
		}
	}
	want = []string{"cut 7", "clear queue 0", "clear socket 0", "cut 7"}
	if asked := f.done(); !sameEvents(asked, want) {
		t.Errorf("asked %q\nwant  %q", asked, want)
	}
	if got, err := f.Look(0); err != nil || !reflect.DeepEqual(got, DeviceState{There: true}) {
		t.Errorf("it looks %+v: %v", got, err)
	}
	f.nothingOpen(t)
}

// sameEvents compares without the order of what two goroutines do.
func sameEvents(got, want []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want)))
}

// What is refused is said with its remedy, and leaves nothing behind. A device of somebody
// else's is not touched.
func TestIoctlRefused(t *testing.T) {
	for name, test := range map[string]struct {
		fault func(*fakeIoctls, *Setup)
		want  string
		asked []string // besides cutting
	}{
		"attached by somebody else": {
			func(f *fakeIoctls, _ *Setup) { f.fail[ioctlSetSocket] = ErrDeviceBusy },
			"attach /dev/nbd0: give it a connection: the kernel says that it is in use",
			[]string{"socket 7"},
		},
		"mounted": {
			func(f *fakeIoctls, _ *Setup) { f.claim = true },
			"attach /dev/nbd0: the kernel says that it is in use", nil,
		},
		"not root": {
			func(f *fakeIoctls, _ *Setup) { f.fail[ioctlSetSocket] = fs.ErrPermission },
			"attach /dev/nbd0: give it a connection: permission denied; hint: run twinbd as root, or give it CAP_SYS_ADMIN",
			[]string{"socket 7"},
		},
		"no flags": {
			func(f *fakeIoctls, _ *Setup) { f.fail[ioctlSetFlags] = errors.New("no such thing") },
			"attach /dev/nbd0: set its flags to 365: no such thing",
			[]string{"socket 7", "block size 4096", "blocks 262144", "flags 365", "clear queue 0", "clear socket 0"},
		},
		"no start": {
			func(f *fakeIoctls, _ *Setup) { f.fail[ioctlDoIt] = errors.New("no such thing") },
			"attach /dev/nbd0: start it: no such thing",
			[]string{"socket 7", "block size 4096", "blocks 262144", "flags 365", "timeout 1728000", "do it 0", "clear queue 0", "clear socket 0"},
		},
		"not there": {
			func(_ *fakeIoctls, s *Setup) { s.Index = 1 },
			"attach /dev/nbd1: the driver has no such device; hint: modprobe nbd nbds_max=2", nil,
		},
		"a broken size": {
			func(_ *fakeIoctls, s *Setup) { s.Size++ },
			"attach /dev/nbd0: 1073741825 bytes are no whole blocks of 4096", nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeIoctls(t)
			setup := f.setup()
			test.fault(f, &setup)
			if err := f.Connect(setup); err == nil || err.Error() != test.want {
				t.Errorf("%v\nwant %s", err, test.want)
			}
			asked := slices.DeleteFunc(f.done(), func(what string) bool { return strings.HasPrefix(what, "cut ") })
			if !slices.Equal(asked, test.asked) {
				t.Errorf("asked %q\nwant  %q", asked, test.asked)
			}
			f.nothingOpen(t)
		})
	}
}

// A kernel that shows another size than it was told would hide a part of the volume.
func TestIoctlSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeIoctls(t)
		f.small = true
		if err := f.Connect(f.setup()); err == nil || err.Error() != "attach /dev/nbd0: the kernel shows it with 536870912 bytes, not 1073741824" {
			t.Errorf("attached: %v", err)
		}
		f.nothingOpen(t)
	})
}

// The end of a device that nobody has asked for is told to who watches.
func TestIoctlWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeIoctls(t)
		ctx, cancel := context.WithCancel(t.Context())
		var lost []int
		over := make(chan error, 1)
		go func() { over <- f.Watch(ctx, func(index int) { lost = append(lost, index) }) }()
		synctest.Wait()
		if err := f.Connect(f.setup()); err != nil {
			t.Fatal(err)
		}
		f.fail[ioctlSetSocket] = ErrDeviceBusy
		if err := f.Connect(Setup{Size: 4096, BlockSize: 4096, Sockets: []int{9}}); !errors.Is(err, ErrDeviceBusy) {
			t.Errorf("attached a second time: %v", err)
		}
		synctest.Wait()
		if len(lost) != 0 {
			t.Errorf("lost %v", lost)
		}
		fakeHeld{f, 7}.cut()
		synctest.Wait()
		if !slices.Equal(lost, []int{0}) {
			t.Errorf("lost %v", lost)
		}
		if got, _ := f.Look(0); got.Attached || got.Used {
			t.Errorf("it looks %+v", got)
		}
		f.nothingOpen(t)
		cancel()
		if err := <-over; err != nil {
			t.Error(err)
		}
	})
}

// What others have left, or have.
func TestIoctlLook(t *testing.T) {
	for name, test := range map[string]struct {
		files map[string]string
		lives bool
		claim bool
		want  DeviceState
	}{
		"nobody's":     {want: DeviceState{There: true}},
		"mounted":      {claim: true, want: DeviceState{There: true, Used: true}},
		"somebody's":   {map[string]string{"pid": "9"}, true, false, DeviceState{There: true, Used: true, Attached: true, PID: 9}},
		"a dead one's": {map[string]string{"pid": "9"}, false, false, DeviceState{There: true, Used: true, PID: 9}},
		"by netlink":   {map[string]string{"pid": "9", "backend": "x"}, false, false, DeviceState{There: true, Used: true, Attached: true, PID: 9, Backend: "x"}},
	} {
		f := newFakeIoctls(t)
		f.claim, f.lives = test.claim, func(int) bool { return test.lives }
		for file, text := range test.files {
			f.show(t, file, text)
		}
		if got, err := f.Look(0); err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, test.want)
		}
		f.nothingOpen(t)
	}
	f := newFakeIoctls(t)
	if got, err := f.Look(1); err != nil || !reflect.DeepEqual(got, DeviceState{}) {
		t.Errorf("nbd1 looks %+v: %v", got, err)
	}
	if !f.there() {
		t.Error("the driver is not seen")
	}
	if err := os.RemoveAll(f.path(0, "")); err != nil || f.there() {
		t.Errorf("a driver is seen: %v", err)
	}
}

// The numbers, written by hand from linux/nbd.h.
func TestIoctlNumbers(t *testing.T) {
	got := []uint{ioctlSetSocket, ioctlSetBlockSize, ioctlDoIt, ioctlClearSocket, ioctlClearQueue, ioctlSetSizeBlocks, ioctlSetTimeout, ioctlSetFlags}
	want := []uint{0xab00, 0xab01, 0xab03, 0xab04, 0xab05, 0xab07, 0xab09, 0xab0a}
	if !slices.Equal(got, want) {
		t.Errorf("%#x, want %#x", got, want)
	}
}
