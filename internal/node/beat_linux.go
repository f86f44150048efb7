// SPDX-License-Identifier: Apache-2.0

package node

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// limitUnacknowledged ends a connection whose other side acknowledges nothing
// for so long: after a cut the path is made anew, instead of waiting for a
// retransmission that comes later and later.
func limitUnacknowledged(conn net.Conn, limit time.Duration) {
	raw, ok := underneath(conn).(syscall.Conn)
	if !ok {
		return
	}
	if c, err := raw.SyscallConn(); err == nil {
		c.Control(func(fd uintptr) {
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(limit.Milliseconds()))
		})
	}
}
