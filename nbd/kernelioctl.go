// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Where the driver's netlink family is not seen, before Linux 4.12 and in every network
// namespace but the machine's first, a device is attached with ioctls on its file. That
// is a call of this process which lasts as long as the device is attached: it ends with
// the process, nothing holds requests until another comes, and what has died is not
// replaced. kernelioctl_linux.go has the calls.
//
// It has one connection. Each is read by a work item of the kernel's; when a busy machine
// is slow to make workers for several, a single one (rescuer_thread in
// kernel/workqueue.c) takes them all, one after the other, and never ends the first: no
// answer on another is read. Over netlink KernelTimeout ends that; here nothing would.

// Requests of linux/nbd.h, all of them _IO(0xab, n). go-nbd has these numbers for amd64
// only, unless there is a C compiler, and not the last.
const (
	ioctlSetSocket     = uint(0xab00 + iota) // a descriptor
	ioctlSetBlockSize                        // bytes
	_                                        // the size in bytes, which a long may not hold
	ioctlDoIt                                // returns when the device is detached, or dead
	ioctlClearSocket                         // what waits fails
	ioctlClearQueue                          // nothing, since long; what came first in older drivers
	_                                        // a line in the kernel's log
	ioctlSetSizeBlocks                       // blocks
	_                                        // detaches; see cut
	ioctlSetTimeout                          // seconds
	ioctlSetFlags                            // Flag…
)

// ioctlTimeout is how long the kernel waits for an answer: it gives the connection up
// then, and nothing would replace it. Something must be said, for else drivers have 30 s,
// and zero is not none to all of them: that of Linux 5.0 ignores it. That of Linux 4.9
// has 30 s whatever it is told. Requests of a connection that is dead wait for it too,
// while others live: so who finds one dead disconnects the device.
const ioctlTimeout = KernelDeadAfter

// startLimit is for a device that is attached to show its size.
const startLimit = 5 * time.Second

var (
	errNotReplaced = errors.New("connections that have died cannot be replaced: the device was attached by ioctl")
	errAtOnce      = errors.New("the kernel has let go of it at once")
)

// ioctlKernel is the driver as it is reached with ioctls.
type ioctlKernel struct {
	kernelFiles
	kept *attachments

	open  func(path string, alone bool) (deviceFile, error) // alone: ErrDeviceBusy where somebody has it to himself
	hold  func(descriptor int) (kernelEnd, error)
	calm  func(f func()) error // runs f on a thread that no signal interrupts
	lives func(pid int) bool   // is there such a thread, of another process?
}

// deviceFile is an open /dev/nbdN.
type deviceFile interface {
	ioctl(request uint, value int) error
	Close() error
}

// kernelEnd is the kernel's end of a connection, held by us too.
type kernelEnd interface {
	// cut ends the connection for all who have it.
	cut()
	Close() error
}

// attachments are a process's devices, by index. They outlast an ioctlKernel, for each
// opening of the driver makes another.
type attachments struct {
	mu        sync.Mutex
	all       map[int]*attachment
	listeners map[int]func(index int)
	last      int
}

// attachment is a device that this process keeps attached.
type attachment struct {
	index   int
	backend string
	told    chan error    // nil when the kernel is about to begin
	asked   atomic.Bool   // it is to end
	ended   chan struct{} // closed when the kernel has let go, and the file is closed
	failed  error         // why; valid when ended

	mu  sync.Mutex
	end kernelEnd // of the kernel's, until the device has ended: nil then
}

// there reports whether the driver has any devices.
func (k *ioctlKernel) there() bool {
	list, _ := filepath.Glob(filepath.Join(k.sys, "block", "nbd[0-9]*"))
	return len(list) > 0
}

// Replaces is false.
func (k *ioctlKernel) Replaces() bool { return false }

// Reconfigure is refused.
func (k *ioctlKernel) Reconfigure(s Setup) error {
	return explain("give new connections to", s.Index, errNotReplaced)
}

// Connect attaches.
func (k *ioctlKernel) Connect(s Setup) error { return explain("attach", s.Index, k.attach(s)) }

func (k *ioctlKernel) attach(s Setup) error {
	if !k.shown(s.Index).There {
		return fmt.Errorf("the driver has no such device; hint: modprobe nbd nbds_max=%d", s.Index+1)
	}
	if s.Size%int64(s.BlockSize) != 0 {
		return fmt.Errorf("%d bytes are no whole blocks of %d", s.Size, s.BlockSize)
	}
	file, err := k.take(s.Index)
	if err != nil {
		return err
	}
	a := &attachment{index: s.Index, backend: s.Backend, told: make(chan error, 1), ended: make(chan struct{})}
	if a.end, err = k.hold(s.Sockets[0]); err != nil {
		_ = file.Close()
		return err
	}
	go k.keep(a, file, s)
	if err := <-a.told; err != nil {
		<-a.ended
		return err
	}
	if err := k.begun(a, s.Size); err != nil {
		a.detach()
		return err
	}
	return nil
}

// take opens the device, unless somebody has it to himself, as a mount has: a kernel
// before 4.12 would attach it below him.
func (k *ioctlKernel) take(index int) (deviceFile, error) {
	if err := k.Node(index); err != nil {
		return nil, err
	}
	mine, err := k.open(k.node(index), true)
	if err != nil {
		return nil, err
	}
	defer mine.Close()
	return k.open(k.node(index), false)
}

func (k *ioctlKernel) node(index int) string {
	return filepath.Join(k.dev, "nbd"+strconv.Itoa(index))
}

// keep is the life of an attachment.
func (k *ioctlKernel) keep(a *attachment, file deviceFile, s Setup) {
	if err := k.calm(func() { k.run(a, file, s) }); err != nil {
		a.told <- err
	}
	a.letGo()
	_ = file.Close()
	lost := k.kept.remove(a) && !a.asked.Load()
	close(a.ended)
	if lost {
		k.kept.tell(a.index)
	}
}

// run says everything to the driver on one thread, which it wants, and then belongs to
// it. The socket is the claim: it is refused where somebody else has attached the
// device, and before it nothing is changed.
func (k *ioctlKernel) run(a *attachment, file deviceFile, s Setup) {
	if err := file.ioctl(ioctlSetSocket, s.Sockets[0]); err != nil {
		a.told <- fmt.Errorf("give it a connection: %w", err)
		return
	}
	// When it has ended, requests that had no answer wait still, for a time limit.
	defer func() { _ = file.ioctl(ioctlClearSocket, 0) }()
	defer func() { _ = file.ioctl(ioctlClearQueue, 0) }()
	if err := describe(file, s); err != nil {
		a.told <- err
		return
	}
	k.kept.add(a)
	a.told <- nil
	if err := file.ioctl(ioctlDoIt, 0); err != nil {
		a.failed = fmt.Errorf("start it: %w", err)
	}
}

// describe says what the device is like. The size counts in blocks, so their size comes
// before it.
func describe(file deviceFile, s Setup) error {
	for _, say := range []struct {
		what    string
		request uint
		value   int
	}{
		{"block size", ioctlSetBlockSize, s.BlockSize},
		{"size", ioctlSetSizeBlocks, int(s.Size / int64(s.BlockSize))},
		{"flags", ioctlSetFlags, int(s.Flags)}, // without them it would never flush
		{"time limit", ioctlSetTimeout, int(seconds(ioctlTimeout))},
	} {
		if err := file.ioctl(say.request, say.value); err != nil {
			return fmt.Errorf("set its %s to %d: %w", say.what, say.value, err)
		}
	}
	return nil
}

// begun waits until the device is there in its whole size: older drivers count blocks in
// 31 bits.
func (k *ioctlKernel) begun(a *attachment, size int64) error {
	limit := time.NewTimer(startLimit)
	defer limit.Stop()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for {
		now := k.shown(a.index)
		if now.Attached && now.Size == size {
			return nil
		}
		select {
		case <-look.C:
		case <-a.ended:
			if a.failed != nil {
				return a.failed
			}
			return errAtOnce
		case <-limit.C:
			return fmt.Errorf("the kernel shows it with %d bytes, not %d", now.Size, size)
		}
	}
}

// cut ends the connection, and with it the device. NBD_DISCONNECT would ask for that on
// the connection, for ever if nobody reads, and older drivers write out first what the
// page cache holds.
func (a *attachment) cut() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.end != nil {
		a.end.cut()
	}
}

// letGo ends the connection also where a driver has refused the device and keeps that.
func (a *attachment) letGo() {
	a.cut()
	a.mu.Lock()
	defer a.mu.Unlock()
	_ = a.end.Close()
	a.end = nil
}

// detach asks for the end, and waits for it.
func (a *attachment) detach() {
	a.asked.Store(true)
	a.cut()
	<-a.ended
}

// Disconnect detaches what this process has attached.
func (k *ioctlKernel) Disconnect(index int) error {
	if a := k.kept.get(index); a != nil {
		a.detach()
	}
	return nil
}

// Watch hears of devices that have died: that is when the call ends.
func (k *ioctlKernel) Watch(ctx context.Context, lost func(index int)) error {
	defer k.kept.listen(lost)()
	<-ctx.Done()
	return nil
}

// Look says how a device is. As long as somebody has it open, it looks attached after
// whoever had attached it has ended: everything that is asked of it fails.
func (k *ioctlKernel) Look(index int) (DeviceState, error) {
	s := k.shown(index)
	if a := k.kept.get(index); a != nil {
		s.Used, s.Attached, s.Backend, s.PID, s.Connections = true, true, a.backend, os.Getpid(), 1
		return s, nil
	}
	s.Used = s.Attached || s.There && k.claimed(index)
	s.Attached = s.Attached && (s.Backend != "" || k.lives(s.PID))
	return s, nil
}

// claimed reports whether somebody has the device to himself: a mount, a device mapper.
func (k *ioctlKernel) claimed(index int) bool {
	file, err := k.open(k.node(index), true)
	if err == nil {
		_ = file.Close()
	}
	return errors.Is(err, ErrDeviceBusy)
}

func (t *attachments) get(index int) *attachment {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.all[index]
}

func (t *attachments) add(a *attachment) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all == nil {
		t.all = make(map[int]*attachment)
	}
	t.all[a.index] = a
}

// remove forgets an attachment, and reports whether there was one: it may have been
// refused.
func (t *attachments) remove(a *attachment) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all[a.index] != a {
		return false
	}
	delete(t.all, a.index)
	return true
}

// listen has f told of devices that die until stop is called.
func (t *attachments) listen(f func(index int)) (stop func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.listeners == nil {
		t.listeners = make(map[int]func(int))
	}
	t.last++
	id := t.last
	t.listeners[id] = f
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.listeners, id)
	}
}

func (t *attachments) tell(index int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range t.listeners {
		f(index)
	}
}
