// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// newWaiter returns how this system waits, and the loop's clock.
func newWaiter(l *Loop, portable bool) (waiter, func() time.Duration) {
	if portable {
		return newPark(l)
	}
	start := boottime()
	return &poller{loop: l}, func() time.Duration { return boottime() - start }
}

// boottime reads CLOCK_BOOTTIME, which runs while the machine is suspended.
func boottime() time.Duration {
	var ts unix.Timespec
	_, _, errno := syscall.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&ts)), 0)
	if errno != 0 {
		panic(fmt.Sprintf("loop: read CLOCK_BOOTTIME: %v", errno)) // in Linux since 2.6.39
	}
	return time.Duration(ts.Nano())
}

// maxVector is how many buffers one system call carries: IOV_MAX.
const maxVector = 1024

// poller waits with ppoll(2) on an OS thread of its own. A handful of
// descriptors is polled quicker than an epoll set is kept up to date with
// whose room is empty and whose output is blocked.
type poller struct {
	loop  *Loop
	event *os.File // an eventfd; a File, so that a late interrupt hits no reused descriptor

	fds   []unix.PollFd // the eventfd, then the watched ports
	ports []*Port       // whose the descriptors are; nil for the eventfd

	vain int // spins that found nothing, in a row, and waits without one since

	// What the kernel reads during a call lives here, so that nothing is
	// allocated and nothing moves.
	timeout unix.Timespec
	probe   unix.PollFd
	vector  [maxVector]unix.Iovec
	message unix.Msghdr
}

// tick is what an eventfd is told: not zero in either byte order.
var tick = [8]byte{0: 1, 7: 1}

func (w *poller) open() error {
	// Without EFD_NONBLOCK the runtime leaves the descriptor alone.
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	w.event = os.NewFile(uintptr(fd), "eventfd")
	w.fds = append(w.fds[:0], unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	w.ports = append(w.ports[:0], nil)
	runtime.LockOSThread()
	return nil
}

func (w *poller) close() {
	if w.event == nil {
		return
	}
	w.event.Close()
	runtime.UnlockOSThread()
}

func (w *poller) interrupt() {
	// It fails only when the loop has ended, and then nobody sleeps.
	_, _ = w.event.Write(tick[:])
}

func (w *poller) begin() {
	clear(w.ports[1:])
	w.fds, w.ports = w.fds[:1], w.ports[:1]
}

func (w *poller) watch(p *Port, read, write bool) {
	fd := p.link.descriptor()
	// Who wants nothing is left out altogether: a hang-up is always reported
	// and would turn the loop in circles.
	if fd < 0 || !read && !write {
		return
	}
	var events int16
	if read {
		events |= unix.POLLIN
	}
	if write {
		events |= unix.POLLOUT
	}
	w.fds = append(w.fds, unix.PollFd{Fd: int32(fd), Events: events})
	w.ports = append(w.ports, p)
}

func (w *poller) wait(idle bool, deadline, spin time.Duration) error {
	found, err := w.glance()
	if found || err != nil || !idle {
		return err
	}
	if spin > 0 && w.spinPays() {
		found, err := w.spinFor(spin)
		if found || err != nil {
			return err
		}
	}
	return w.sleep(deadline)
}

// spinPays is false after several spins in vain, except now and then to try
// again. Where the kernel has put the other side on this very processor, it
// cannot run before the spin is over, and each would be in vain.
func (w *poller) spinPays() bool {
	if w.vain < patience {
		return true
	}
	w.vain++
	return w.vain%probeEvery == 0
}

const (
	patience   = 8  // spins in vain, in a row
	probeEvery = 64 // waits, afterwards
)

func (w *poller) spinFor(spin time.Duration) (found bool, err error) {
	for start := time.Now(); time.Since(start) < spin; {
		found = w.loop.signal.Load()
		if !found {
			found, err = w.glance()
		}
		if found || err != nil {
			w.vain = 0
			return found, err
		}
	}
	if w.vain < patience {
		w.vain++
	}
	return false, nil
}

// glance asks what is ready without waiting. It returns within a microsecond
// or two, so the scheduler need not know.
func (w *poller) glance() (bool, error) {
	if len(w.fds) == 1 {
		return false, nil
	}
	w.timeout = unix.Timespec{}
	n, _, errno := syscall.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&w.fds[1])), uintptr(len(w.fds)-1),
		uintptr(unsafe.Pointer(&w.timeout)), 0, 0, 0)
	return w.mark(n, errno)
}

func (w *poller) sleep(deadline time.Duration) error {
	if !w.loop.fallAsleep() {
		return nil
	}
	w.timeout = unix.NsecToTimespec(int64(w.loop.sleepTime(deadline)))
	n, _, errno := syscall.Syscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&w.fds[0])), uintptr(len(w.fds)),
		uintptr(unsafe.Pointer(&w.timeout)), 0, 0, 0)
	w.loop.awaken()
	if _, err := w.mark(n, errno); err != nil {
		return err
	}
	if w.fds[0].Revents != 0 {
		w.fds[0].Revents = 0
		var count [8]byte
		if _, err := unix.Read(int(w.fds[0].Fd), count[:]); err != nil && err != unix.EINTR {
			return os.NewSyscallError("read eventfd", err)
		}
	}
	return nil
}

// mark tells the ports what poll found.
func (w *poller) mark(n uintptr, errno syscall.Errno) (bool, error) {
	switch {
	case errno == unix.EINTR:
		return false, nil
	case errno != 0:
		return false, os.NewSyscallError("ppoll", errno)
	case n == 0:
		return false, nil
	}
	const trouble = unix.POLLHUP | unix.POLLERR | unix.POLLNVAL
	for i := 1; i < len(w.fds); i++ {
		f := &w.fds[i]
		if f.Revents == 0 {
			continue
		}
		p := w.ports[i]
		if f.Events&unix.POLLIN != 0 && f.Revents&(unix.POLLIN|trouble) != 0 {
			p.readable = true
		}
		if f.Events&unix.POLLOUT != 0 && f.Revents&(unix.POLLOUT|trouble) != 0 {
			p.writable = true
		}
		f.Revents = 0
	}
	return true, nil
}
