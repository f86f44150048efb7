// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// theKernel is where the kernel shows its devices.
var theKernel = kernelFiles{sys: "/sys", dev: "/dev"}

// OpenKernel finds the driver. ErrNoDriver says that there is none now.
func OpenKernel() (Driver, error) {
	k := &Kernel{kernelFiles: theKernel}
	payload := appendAttr(nil, controlFamilyName, append([]byte(kernelFamily), 0))
	answer, err := exchange(nl.GENL_ID_CTRL, nl.GENL_CTRL_CMD_GETFAMILY, nl.GENL_CTRL_VERSION, payload, 0)
	if errors.Is(err, unix.ENOENT) {
		return openIoctl()
	}
	if err != nil {
		return nil, fmt.Errorf("ask the kernel for its NBD driver: %w", err)
	}
	family, group, err := parseFamily(answer)
	if err != nil {
		return nil, fmt.Errorf("ask the kernel for its NBD driver: %w", err)
	}
	k.ask = func(command uint8, payload []byte) ([]byte, error) {
		flags := unix.NLM_F_ACK
		if command == kernelStatus {
			flags = 0 // the answer is the acknowledgement
		}
		answer, err := exchange(family, command, kernelVersion, payload, flags)
		return answer, busy(err)
	}
	k.watch = func(ctx context.Context, heard func([]byte)) error { return listen(ctx, group, heard) }
	return k, nil
}

// busy says EBUSY in words.
func busy(err error) error {
	if errors.Is(err, unix.EBUSY) {
		return ErrDeviceBusy
	}
	return err
}

// exchange asks on a socket of its own. The kernel does the work while it takes
// the message, on the thread that sends it: so descriptors in it are this
// process's.
func exchange(family uint16, command, version uint8, payload []byte, flags int) ([]byte, error) {
	request := nl.NewNetlinkRequest(int(family), flags)
	request.AddRawData(append([]byte{command, version, 0, 0}, payload...))
	answers, err := request.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil || len(answers) == 0 {
		return nil, err
	}
	return answers[0], nil
}

// listen passes on what the driver tells its group until ctx ends.
func listen(ctx context.Context, group uint32, heard func([]byte)) error {
	if group == 0 {
		<-ctx.Done() // a driver that tells nothing; connections that end are seen all the same
		return nil
	}
	socket, err := nl.Subscribe(unix.NETLINK_GENERIC)
	if err != nil {
		return fmt.Errorf("listen to the NBD driver: %w", err)
	}
	defer socket.Close()
	if err := unix.SetsockoptInt(socket.GetFd(), unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, int(group)); err != nil {
		return fmt.Errorf("listen to the NBD driver: %w", os.NewSyscallError("setsockopt", err))
	}
	defer context.AfterFunc(ctx, socket.Close)()
	for {
		messages, from, err := socket.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOBUFS): // some were missed: one more look does no harm
			continue
		case err != nil:
			return fmt.Errorf("listen to the NBD driver: %w", err)
		case from.Pid != nl.PidKernel:
			continue
		}
		for _, m := range messages {
			heard(m.Data)
		}
	}
}

// makeNode makes a block device's file, for root only.
func makeNode(path string, major, minor uint32) error {
	if err := unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(major, minor))); err != nil {
		return &fs.PathError{Op: "mknod", Path: path, Err: err}
	}
	return nil
}

// SocketPair returns the two ends of a connection: the kernel's and ours. Both
// are descriptors that no child inherits.
func SocketPair() (kernel, ours *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	for _, fd := range fds {
		// Room for a long request: fewer turns for each. Without the right to
		// more, the default does too.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, socketBuffer)
	}
	return os.NewFile(uintptr(fds[0]), "nbd (kernel)"), os.NewFile(uintptr(fds[1]), "nbd"), nil
}

const socketBuffer = 1 << 20
