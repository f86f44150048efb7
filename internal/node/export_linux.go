// SPDX-License-Identifier: Apache-2.0

package node

import (
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// freebind lets a socket listen on an address that is not on this machine yet.
//
// Where it is permitted, its connections may also be reset once the address is
// gone: one that came just before that would else wait for a server that cannot
// even say so, and in NBD the server speaks first.
func freebind(network, _ string, raw syscall.RawConn) error {
	level, free, transparent := unix.IPPROTO_IP, unix.IP_FREEBIND, unix.IP_TRANSPARENT
	if strings.HasSuffix(network, "6") {
		level, free, transparent = unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, unix.IPV6_TRANSPARENT
	}
	var err error
	if e := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), level, free, 1)
		_ = unix.SetsockoptInt(int(fd), level, transparent, 1) // wants CAP_NET_ADMIN, as the addresses do
	}); e != nil {
		return e
	}
	return err
}
