// SPDX-License-Identifier: Apache-2.0

package control

import (
	"fmt"
	"net"
	"syscall"
)

// peerOf says who is at the other end of a Unix socket, as the kernel knows it.
func peerOf(conn net.Conn) string {
	unix, ok := conn.(*net.UnixConn)
	if !ok {
		return ""
	}
	raw, err := unix.SyscallConn()
	if err != nil {
		return ""
	}
	var who *syscall.Ucred
	err = raw.Control(func(fd uintptr) {
		who, _ = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	switch {
	case err != nil || who == nil:
		return ""
	case who.Uid == 0:
		return "root"
	default:
		return fmt.Sprintf("user %d", who.Uid)
	}
}
