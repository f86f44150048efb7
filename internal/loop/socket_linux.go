// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is a stream socket that the runtime knows nothing of. Each call says
// itself that it must not wait (MSG_DONTWAIT) and must raise no signal
// (MSG_NOSIGNAL), so that it depends on no flag of a descriptor that may be
// shared with another process.
type socket struct {
	fd int
	w  *poller
}

// take duplicates the descriptor and closes conn, which detaches it from the
// runtime's poller and leaves the connection open.
func (w *poller) take(conn net.Conn) (link, error) {
	var sc syscall.Conn
	switch c := conn.(type) {
	case *net.TCPConn:
		sc = c
	case *net.UnixConn:
		if a := c.LocalAddr(); a == nil || a.Network() != "unix" {
			return nil, fmt.Errorf("take over socket: a %s socket is not a stream", a.Network())
		}
		sc = c
	default:
		return nil, nil
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("take over socket: %w", err)
	}
	fd, dupErr := -1, error(nil)
	err = rc.Control(func(raw uintptr) {
		fd, dupErr = unix.FcntlInt(raw, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err == nil && dupErr != nil {
		err = os.NewSyscallError("fcntl", dupErr)
	}
	if err != nil {
		return nil, fmt.Errorf("take over socket: %w", err)
	}
	conn.Close()
	return &socket{fd: fd, w: w}, nil
}

func (s *socket) ready() (read, write bool) { return false, false }
func (s *socket) descriptor() int           { return s.fd }
func (s *socket) unsent() bool              { return false }
func (s *socket) close()                    { unix.Close(s.fd) }

// hungUp reports whether the other side has shut the connection down.
func (s *socket) hungUp() bool {
	w := s.w
	w.probe = unix.PollFd{Fd: int32(s.fd), Events: unix.POLLRDHUP}
	w.timeout = unix.Timespec{}
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&w.probe)), 1, uintptr(unsafe.Pointer(&w.timeout)), 0, 0, 0)
		if errno != unix.EINTR {
			return errno != 0 || n > 0 // whatever poll adds to what it was asked for is trouble
		}
	}
}

func (s *socket) read(p []byte) (int, error) {
	for {
		n, _, errno := syscall.Syscall6(unix.SYS_RECVFROM, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))),
			uintptr(len(p)), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			if n == 0 {
				return 0, io.EOF
			}
			return int(n), nil
		case unix.EINTR:
		case unix.EAGAIN:
			return 0, errAgain
		default:
			return 0, errno
		}
	}
}

func (s *socket) write(buffers [][]byte) (int, error) {
	w, count, want := s.w, 0, 0
	for _, b := range buffers {
		if count == maxVector {
			break
		}
		if len(b) == 0 {
			continue
		}
		v := &w.vector[count]
		v.Base = unsafe.SliceData(b)
		v.SetLen(len(b))
		count++
		want += len(b)
	}
	if count == 0 {
		return 0, nil
	}
	w.message.Iov = &w.vector[0]
	w.message.SetIovlen(count)
	for {
		n, _, errno := syscall.Syscall(unix.SYS_SENDMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&w.message)),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch errno {
		case 0:
			if int(n) < want {
				return int(n), errAgain
			}
			return int(n), nil
		case unix.EINTR:
		case unix.EAGAIN:
			return 0, errAgain
		default:
			return 0, errno
		}
	}
}
