// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/twinbd/twinbd/internal/crowd"
)

// The defaults of a Server.
const (
	DefaultMaxConnections = 512
	DefaultMaxPerHost     = 64
	DefaultIdleTimeout    = time.Minute
	DefaultHelloTimeout   = 5 * time.Second
)

// Server answers nodes from a register. Its fields are set before the first
// Serve and not changed after.
type Server struct {
	Register *Register    // required
	Log      *slog.Logger // required

	// Accept makes an accepted connection a safe one and says which node's
	// key it has shown: a TLS handshake, with ctx as its bound. On error it
	// has closed the connection. Nil where there are no keys: then anybody may
	// ask in any name.
	Accept func(ctx context.Context, conn net.Conn) (safe net.Conn, node string, err error)

	// Beyond these a newcomer takes the place of who deserves it least: one that
	// has not shown a key or said hello, and then the one that has not asked for
	// anything for the longest. A node asks all the time.
	MaxConnections int           // at once; 0: DefaultMaxConnections
	MaxPerHost     int           // at once from one address; 0: DefaultMaxPerHost
	IdleTimeout    time.Duration // for the next whole message; 0: DefaultIdleTimeout
	HelloTimeout   time.Duration // for the handshake, for the hello and for each write; 0: DefaultHelloTimeout

	once   sync.Once
	guests crowd.List
	quiet  *slog.Logger // of what anybody can cause
}

// begin prepares what all listeners share.
func (s *Server) begin() {
	s.guests.Most = cmp.Or(s.MaxConnections, DefaultMaxConnections)
	s.guests.MostPerHost = cmp.Or(s.MaxPerHost, DefaultMaxPerHost)
	s.quiet = crowd.Quiet(s.Log)
}

// The ranks of connections.
const (
	rankStranger = iota
	rankNode     // has shown a key, where there are keys, and said hello
)

// Serve answers the connections of listener until ctx ends; then it closes
// listener and connections, waits until no request is under way and returns nil. It returns the error of a listener that closes by
// itself. Several listeners may be served at once.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	s.once.Do(s.begin)
	return crowd.Accept(ctx, listener, s.quiet, s.guests.Most+crowd.Leaving, func(conn net.Conn) {
		guest := s.guests.Enter(crowd.Host(conn.RemoteAddr()), func() { conn.Close() })
		defer guest.Leave()
		s.converse(ctx, conn, guest)
	})
}

// converse serves one connection to its end.
func (s *Server) converse(ctx context.Context, conn net.Conn, guest *crowd.Guest) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	log := s.quiet.With("remote", conn.RemoteAddr().String())
	p, err := s.greet(ctx, conn)
	if err == nil {
		guest.Rank(rankNode)
	}
	for err == nil {
		if err = s.turn(p); err == nil {
			guest.Seen()
		}
	}
	switch {
	case errors.Is(err, io.EOF), ctx.Err() != nil:
		log.Debug("connection ended")
	default:
		log.Info("connection closed", "error", err)
	}
}

// party is who is at the other end of a connection.
type party struct {
	conn net.Conn
	in   *bufio.Reader
	node string // whose key it has shown; "" without keys
}

// greet lets the node prove its name and agree on a version.
func (s *Server) greet(ctx context.Context, conn net.Conn) (*party, error) {
	p, err := s.identify(ctx, conn)
	if err != nil {
		return nil, err
	}
	p.conn.SetReadDeadline(time.Now().Add(s.helloTimeout()))
	hello, err := readFrame(p.in)
	if err != nil {
		return nil, fmt.Errorf("read hello: %w", err)
	}
	if hello.kind != frameHello {
		return nil, s.refuse(p, hello.call, fmt.Errorf("%w: the first message is not a hello", errMalformed))
	}
	version, err := chooseVersion(hello.body)
	if err != nil {
		return nil, s.refuse(p, hello.call, err)
	}
	welcome := binary.BigEndian.AppendUint16(nil, version)
	return p, s.send(p, frame{kind: frameWelcome, call: hello.call, body: welcome})
}

func (s *Server) identify(ctx context.Context, conn net.Conn) (*party, error) {
	p := &party{conn: conn}
	if s.Accept != nil {
		ctx, cancel := context.WithTimeout(ctx, s.helloTimeout())
		defer cancel()
		var err error
		if p.conn, p.node, err = s.Accept(ctx, conn); err != nil {
			return nil, fmt.Errorf("prove identity: %w", err)
		}
	}
	p.in = bufio.NewReader(p.conn)
	return p, nil
}

func (s *Server) helloTimeout() time.Duration { return cmp.Or(s.HelloTimeout, DefaultHelloTimeout) }

// turn answers one request.
func (s *Server) turn(p *party) error {
	p.conn.SetReadDeadline(time.Now().Add(cmp.Or(s.IdleTimeout, DefaultIdleTimeout)))
	f, err := readFrame(p.in)
	if err != nil {
		return err
	}
	answer, err := s.answer(p, f)
	switch {
	case err == nil:
		return s.send(p, frame{kind: frameAnswer, call: f.call, body: answer.append(nil)})
	case errors.Is(err, ErrUnusable), errors.Is(err, ErrFull):
		// The node did nothing wrong: it may go on about other services.
		return s.send(p, frame{kind: frameFailure, call: f.call, body: failureBody(err)})
	default:
		return s.refuse(p, f.call, err)
	}
}

func (s *Server) answer(p *party, f frame) (Answer, error) {
	switch f.kind {
	case frameRead:
		q, err := decodeQuery(f.body)
		if err == nil {
			err = s.checkIdentity(p, q.From)
		}
		if err != nil {
			return Answer{}, err
		}
		return s.Register.Read(q)
	case frameChange:
		q, err := decodeRequest(f.body)
		if err == nil {
			err = s.checkIdentity(p, q.From)
		}
		if err != nil {
			return Answer{}, err
		}
		return s.Register.Change(q)
	}
	return Answer{}, fmt.Errorf("%w: message of type %d", errMalformed, f.kind)
}

func (s *Server) checkIdentity(p *party, from string) error {
	if s.Accept == nil || from == p.node {
		return nil
	}
	return fmt.Errorf("%w: the key is that of %q and the message is in the name of %q; hint: "+
		"give each node its own name (--node) and key", ErrIdentity, p.node, from)
}

// refuse sends the error, if it still can, and returns it, which ends the
// connection.
func (s *Server) refuse(p *party, call uint64, cause error) error {
	s.send(p, frame{kind: frameFailure, call: call, body: failureBody(cause)})
	return cause
}

func (s *Server) send(p *party, f frame) error {
	p.conn.SetWriteDeadline(time.Now().Add(s.helloTimeout()))
	_, err := p.conn.Write(f.append(nil))
	return err
}
