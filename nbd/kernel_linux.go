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
	family, _, err := findDriver()
	if errors.Is(err, ErrNoDriver) {
		return openIoctl()
	}
	if err != nil {
		return nil, err
	}
	k := &Kernel{kernelFiles: theKernel, watch: listen}
	k.ask = func(command uint8, payload []byte) ([]byte, error) {
		flags := unix.NLM_F_ACK
		if command == kernelStatus {
			flags = 0 // the answer is the acknowledgement
		}
		answer, err := exchange(family, command, kernelVersion, payload, flags)
		return answer, busy(err)
	}
	return k, nil
}

// busy says EBUSY in words.
func busy(err error) error {
	if errors.Is(err, unix.EBUSY) {
		return ErrDeviceBusy
	}
	return err
}

// findDriver asks under which numbers the driver and its group are reached over netlink:
// others, perhaps, whenever it is loaded.
func findDriver() (family uint16, group uint32, err error) {
	payload := appendAttr(nil, controlFamilyName, append([]byte(kernelFamily), 0))
	answer, err := exchange(nl.GENL_ID_CTRL, nl.GENL_CTRL_CMD_GETFAMILY, nl.GENL_CTRL_VERSION, payload, 0)
	if errors.Is(err, unix.ENOENT) {
		return 0, 0, ErrNoDriver
	}
	if err == nil {
		family, group, err = parseFamily(answer)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("ask the kernel for its NBD driver: %w", err)
	}
	return family, group, nil
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

// listen passes on what the driver tells its group until ctx ends. The end of a driver
// ends the membership, so the controller is heard too: it says when one is loaded.
func listen(ctx context.Context, heard func([]byte)) error {
	socket, err := nl.Subscribe(unix.NETLINK_GENERIC)
	if err != nil {
		return fmt.Errorf("listen to the NBD driver: %w", err)
	}
	defer socket.Close()
	if err := join(socket, nl.GENL_ID_CTRL); err != nil { // first, so that none is missed
		return err
	}
	_, group, err := findDriver()
	if err == nil {
		err = join(socket, group)
	}
	if err != nil {
		return err
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
			if m.Header.Type != nl.GENL_ID_CTRL {
				heard(m.Data)
			} else if group, ok := parseNewDriver(m.Data); ok {
				if err := join(socket, group); err != nil {
					return err
				}
			}
		}
	}
}

// join makes a socket a member of a group; 0 is none, of a driver that tells nothing.
func join(socket *nl.NetlinkSocket, group uint32) error {
	if group == 0 {
		return nil
	}
	if err := unix.SetsockoptInt(socket.GetFd(), unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, int(group)); err != nil {
		return fmt.Errorf("listen to the NBD driver: %w", os.NewSyscallError("setsockopt", err))
	}
	return nil
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
