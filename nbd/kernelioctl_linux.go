// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// ioctlPlain is what a request without an argument in memory has above its lower half:
// nothing on most machines. BLKGETSIZE is one.
const ioctlPlain = unix.BLKGETSIZE &^ 0xffff

// byIoctl are this process's devices.
var byIoctl attachments

// openIoctl finds the driver where its netlink family is not seen.
func openIoctl() (Driver, error) {
	k := &ioctlKernel{
		kernelFiles: theKernel, kept: &byIoctl,
		open: openDevice, hold: holdSocket, calm: undisturbed, lives: lives,
	}
	if !k.there() {
		return nil, ErrNoDriver
	}
	return k, nil
}

// device is an open block device.
type device struct{ *os.File }

// openDevice is content with reading, or some kernels would mount nothing from it.
func openDevice(path string, alone bool) (deviceFile, error) {
	flag := os.O_RDONLY
	if alone {
		flag |= os.O_EXCL
	}
	file, err := os.OpenFile(path, flag, 0)
	if err != nil {
		return nil, busy(err)
	}
	return device{file}, nil
}

func (d device) ioctl(request uint, value int) error {
	return busy(unix.IoctlSetInt(int(d.Fd()), ioctlPlain|request, value))
}

// socket is a connected one.
type socket struct{ *os.File }

func holdSocket(descriptor int) (kernelEnd, error) {
	fd, err := unix.FcntlInt(uintptr(descriptor), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return socket{os.NewFile(uintptr(fd), "nbd (kernel)")}, nil
}

// cut needs no lock of the driver's, unlike anything that could be asked of that: it may
// be held by who sends, and nobody reads.
func (s socket) cut() { _ = unix.Shutdown(int(s.Fd()), unix.SHUT_RDWR) }

// undisturbed blocks all signals meanwhile: the driver ends the device when one comes,
// be it only the Go runtime's. What stops threads in another way, SIGSTOP or a debugger,
// ends it still. Nothing may want all threads' attention any more, as Protect of the
// node does, before.
func undisturbed(f func()) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, before unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &before); err != nil {
		return fmt.Errorf("block signals: %w", err)
	}
	defer func() { _ = unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil) }()
	f()
	return nil
}

// lives reports whether there is a thread that is not of this process.
func lives(pid int) bool {
	if _, err := os.Stat("/proc/self/task/" + strconv.Itoa(pid)); err == nil {
		return false
	}
	_, err := os.Stat("/proc/" + strconv.Itoa(pid))
	return !errors.Is(err, os.ErrNotExist)
}
