// SPDX-License-Identifier: Apache-2.0

package node

import (
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// freebind lets a socket listen on an address that is not on this machine yet.
func freebind(network, _ string, raw syscall.RawConn) error {
	level, option := unix.IPPROTO_IP, unix.IP_FREEBIND
	if strings.HasSuffix(network, "6") {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_FREEBIND
	}
	var err error
	if e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, 1) }); e != nil {
		return e
	}
	return err
}
