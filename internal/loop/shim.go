// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"
)

// Shim is a net.Conn that a loop can still take over when TLS has been put on
// top of it. A tls.Conn keeps its net.Conn for life; so what lies between must
// be able to change sides: until Loop.Add it passes every call on and holds
// nothing back, afterwards it serves the tls.Conn from within the loop's turn,
// without waiting.
type Shim struct {
	net.Conn           // the connection beneath
	raw      link      // set when the loop has taken over
	drained  bool      // the socket had no more in this turn
	out      []byte    // ciphertext to be sent
	sent     int       // of out
	one      [1][]byte // what flush writes
}

// maxCipher bounds the ciphertext that crypto/tls may produce unasked, as
// answers to the other side, while that does not read.
const maxCipher = 1 << 20

var errCipher = errors.New("the other side makes TLS answer and does not read the answers")

// Wrap returns conn in a Shim. The Shim is used in conn's place, for plain
// reads and writes and for tls.Client or tls.Server, until Loop.Add gets it or
// the tls.Conn.
func Wrap(conn net.Conn) *Shim { return &Shim{Conn: conn} }

// Secure shakes hands over conn, as the server or as the client, and returns a
// connection that Loop.Add takes over without goroutines. It blocks until the
// handshake is done or ctx ends. On error conn is closed.
func Secure(ctx context.Context, conn net.Conn, config *tls.Config, server bool) (*tls.Conn, error) {
	config = config.Clone()
	// Small first records are for browsers that want to paint early.
	config.DynamicRecordSizingDisabled = true
	var t *tls.Conn
	if server {
		t = tls.Server(Wrap(conn), config)
	} else {
		t = tls.Client(Wrap(conn), config)
	}
	if err := t.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("shake hands: %w", err)
	}
	return t, nil
}

// Read is for crypto/tls. Within a turn it reads the raw socket directly into
// the tls.Conn's own buffer.
func (s *Shim) Read(p []byte) (int, error) {
	switch {
	case s.raw == nil:
		return s.Conn.Read(p)
	case s.drained:
		return 0, errAgain
	case len(p) == 0:
		return 0, nil
	}
	n, err := s.raw.read(p)
	// A short read saves asking again; a wait finds what came since.
	s.drained = n < len(p)
	return n, err
}

// Write is for crypto/tls. Within a turn it collects ciphertext.
func (s *Shim) Write(p []byte) (int, error) {
	if s.raw == nil {
		return s.Conn.Write(p)
	}
	if len(s.out)+len(p) > maxCipher {
		return 0, errCipher
	}
	s.out = append(s.out, p...)
	return len(p), nil
}

// flush sends ciphertext; errAgain when some is left.
func (s *Shim) flush() error {
	for s.sent < len(s.out) {
		s.one[0] = s.out[s.sent:]
		n, err := s.raw.write(s.one[:])
		s.sent += n
		if err != nil {
			return err
		}
	}
	s.out, s.sent = s.out[:0], 0
	return nil
}

func (s *Shim) unsent() int { return len(s.out) - s.sent }

// Close closes the connection; within a loop Port.Close does that.
func (s *Shim) Close() error {
	if s.raw == nil {
		return s.Conn.Close()
	}
	return nil
}

// SetDeadline, like the two others, has no meaning within a turn, which never
// waits.
func (s *Shim) SetDeadline(t time.Time) error {
	if s.raw == nil {
		return s.Conn.SetDeadline(t)
	}
	return nil
}

// SetReadDeadline: see SetDeadline.
func (s *Shim) SetReadDeadline(t time.Time) error {
	if s.raw == nil {
		return s.Conn.SetReadDeadline(t)
	}
	return nil
}

// SetWriteDeadline: see SetDeadline.
func (s *Shim) SetWriteDeadline(t time.Time) error {
	if s.raw == nil {
		return s.Conn.SetWriteDeadline(t)
	}
	return nil
}
