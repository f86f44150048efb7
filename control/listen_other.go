// SPDX-License-Identifier: Apache-2.0

//go:build !(linux || darwin || freebsd || netbsd || openbsd)

package control

import (
	"io"
	"io/fs"
	"net"
	"syscall"
)

// lockSocket, where there is no flock: somebody who answers is alive.
func lockSocket(path string) (io.Closer, error) {
	conn, err := net.Dial("unix", path)
	if err == nil {
		conn.Close()
		return nil, errLocked
	}
	return nothing{}, nil
}

type nothing struct{}

func (nothing) Close() error { return nil }

// modeBeforeBind: modes mean nothing here; the directory's access list decides.
func modeBeforeBind(fs.FileMode) func(network, address string, c syscall.RawConn) error { return nil }
