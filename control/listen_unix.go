// SPDX-License-Identifier: Apache-2.0

//go:build linux || darwin || freebsd || netbsd || openbsd

package control

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// lockSocket takes the lock of a socket's path, which ends with the process. It
// is a file of its own: a socket cannot be locked, and connecting to one to see
// whether somebody answers leaves two who start together both thinking that they
// are first. The file stays, because removing it would undo another's lock.
func lockSocket(path string) (io.Closer, error) {
	file, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return file, nil
	}
	file.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, errLocked
	}
	return nil, fmt.Errorf("%s.lock: %w", path, err)
}

// modeBeforeBind gives a socket its mode before it has a name; Linux makes the
// file with it.
func modeBeforeBind(mode fs.FileMode) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		// Where the system does not do this, chmod after bind is all there is.
		return c.Control(func(fd uintptr) { _ = syscall.Fchmod(int(fd), uint32(mode.Perm())) })
	}
}
