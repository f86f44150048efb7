// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"crypto/tls"
	"net"
)

// link is the connection beneath a port. No method waits, except that close
// may for the time of a system call.
type link interface {
	// ready says what is known to be possible without asking the system.
	ready() (read, write bool)

	// descriptor is what the waiter polls, or -1.
	descriptor() int

	// read puts what has arrived into p, which is not empty. errAgain: no
	// more for now; io.EOF: the other side closed in good order. n may be
	// positive beside an error.
	read(p []byte) (n int, err error)

	// write takes the first n bytes of the buffers. errAgain: the connection
	// is full. Without an error all was taken, or as many buffers as one call
	// can carry.
	write(buffers [][]byte) (n int, err error)

	// unsent says that bytes which write took wait here for another write,
	// possibly of nothing.
	unsent() bool

	// close sends what unsent holds as far as possible, and releases all.
	close()
}

// errAgain is wouldBlock as an error. It is compared, and passes through
// crypto/tls unchanged.
var errAgain error = wouldBlock{}

// wouldBlock is a net.Error of the kind after which a tls.Conn stays usable
// and keeps the part of a record that it has.
type wouldBlock struct{}

func (wouldBlock) Error() string   { return "would block" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }

// newLink chooses the kind of link: a raw socket where the system polls it,
// TLS within the turn where the raw socket can be reached, goroutines else.
func (l *Loop) newLink(conn net.Conn) (link, error) {
	if s, ok := conn.(*Shim); ok {
		conn = s.Conn
	}
	if t, ok := conn.(*net.TCPConn); ok {
		if err := t.SetNoDelay(true); err != nil {
			return nil, err
		}
	}
	if t, ok := conn.(*tls.Conn); ok {
		if s, ok := t.NetConn().(*Shim); ok {
			raw, err := l.takeSocket(s.Conn)
			if err != nil {
				return nil, err
			}
			if raw != nil {
				return newTLSLink(t, s, raw), nil
			}
		}
		return l.newPump(conn), nil
	}
	raw, err := l.takeSocket(conn)
	if raw != nil || err != nil {
		return raw, err
	}
	return l.newPump(conn), nil
}

// socketWaiter is implemented by waiters that poll sockets themselves.
type socketWaiter interface {
	// take detaches the socket of conn from the runtime. Both results are nil
	// when conn is not a stream socket.
	take(conn net.Conn) (link, error)
}

func (l *Loop) takeSocket(conn net.Conn) (link, error) {
	if w, ok := l.wait.(socketWaiter); ok {
		return w.take(conn)
	}
	return nil, nil
}
