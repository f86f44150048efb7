// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
)

// DefaultMode of a control socket: root and its group may act.
const DefaultMode fs.FileMode = 0o660

// Listen opens a control socket, making its directory when it is not there. A
// socket that a dead process left is replaced; that of a living one is refused,
// which also holds that a node runs once. Nobody can connect before the mode is
// right. Closing the listener removes the socket.
func Listen(path string, mode fs.FileMode) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make run directory: %w", err)
	}
	lock, err := lockSocket(path)
	if errors.Is(err, errLocked) {
		return nil, &Refusal{
			Message: fmt.Sprintf("another twinbd runs as this node: it answers at %s", path),
			Hint:    "stop it first, or give --node NAME for the other node",
		}
	}
	if err != nil {
		return nil, fmt.Errorf("lock control socket: %w", err)
	}
	listener, err := listenLocked(path, mode)
	if err != nil {
		lock.Close()
		return nil, err
	}
	return &socket{Listener: listener, lock: lock}, nil
}

func listenLocked(path string, mode fs.FileMode) (net.Listener, error) {
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("look at control socket: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return nil, &Refusal{Message: path + " is in the way: it is no socket", Hint: "remove it, or choose another run directory"}
	default:
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove old control socket: %w", err)
		}
	}
	config := net.ListenConfig{Control: modeBeforeBind(mode)}
	listener, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	// The process' umask may have taken away what the group should have.
	if err := os.Chmod(path, mode); err != nil {
		listener.Close()
		return nil, fmt.Errorf("set mode of control socket: %w", err)
	}
	return listener, nil
}

// errLocked says that another process has the lock.
var errLocked = errors.New("locked by another process")

// socket is a listener that gives up its lock last.
type socket struct {
	net.Listener
	lock io.Closer
}

// Close removes the socket and lets another process open it.
func (s *socket) Close() error { return errors.Join(s.Listener.Close(), s.lock.Close()) }
