// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"time"
)

// Connect makes a dialled connection one that only the expected machine reads.
// ctx bounds the handshake. For nil Keys it returns conn. On error conn is
// closed.
func (k *Keys) Connect(ctx context.Context, conn net.Conn, expected string) (net.Conn, error) {
	if k == nil {
		return conn, nil
	}
	secure := tls.Client(conn, k.Client(expected))
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("connect to %s: %w", expected, k.Explain(expected, err))
	}
	return &Conn{Conn: secure, keys: k, peer: expected}, nil
}

// Accept makes an accepted connection one of the allowed machines', and says
// which. ctx bounds the handshake. For nil Keys it returns conn and "", which is
// anybody. On error conn is closed.
func (k *Keys) Accept(ctx context.Context, conn net.Conn, allowed ...string) (net.Conn, string, error) {
	if k == nil {
		return conn, "", nil
	}
	secure := tls.Server(conn, k.Server(allowed...))
	if err := secure.HandshakeContext(ctx); err != nil {
		hangUp(conn)
		return nil, "", fmt.Errorf("accept from %s: %w", conn.RemoteAddr(), err)
	}
	peer := k.PeerName(secure.ConnectionState())
	return &Conn{Conn: secure, keys: k, peer: peer}, peer, nil
}

// hangUp closes a connection so that the other side still reads why: closed with
// bytes unread, TCP would reset it and the alert could be lost. A side that goes
// on sending gets a second and 64 KiB.
func hangUp(conn net.Conn) {
	defer conn.Close()
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	conn.SetReadDeadline(time.Now().Add(time.Second))
	io.CopyN(io.Discard, conn, 64<<10)
}

// Conn is a *tls.Conn whose reads explain a refused key.
type Conn struct {
	*tls.Conn
	keys *Keys
	peer string
}

// Read is that of *tls.Conn; a refusal of our key is a *WrongKey.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		err = c.keys.Explain(c.peer, err)
	}
	return n, err
}
