// SPDX-License-Identifier: Apache-2.0

package nbdtest

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/nbd"
)

// Exports is a fixed list of exports; the first is the default.
type Exports []nbd.Export

// Lookup finds an export.
func (x Exports) Lookup(name string) (nbd.Export, error) {
	for _, e := range x {
		if name == "" || name == e.Name {
			return e, nil
		}
	}
	return nbd.Export{}, &nbd.Refusal{Reply: nbd.ReplyUnknown, Message: "no export has this name"}
}

// List returns the names.
func (x Exports) List() []string {
	var names []string
	for _, e := range x {
		names = append(names, e.Name)
	}
	return names
}

// Server drives sessions with two goroutines per connection, one lock around
// all sessions and the engine standing for the one thread of a loop.
type Server struct {
	mu       sync.Mutex
	turn     sync.Cond // something changed: room, output, the end of a connection
	engine   *Engine
	batch    block.Batch
	sessions map[*nbd.Session]net.Conn
	wg       sync.WaitGroup
}

// NewServer returns a server on the engine.
func NewServer(e *Engine) *Server {
	s := &Server{engine: e, sessions: make(map[*nbd.Session]net.Conn)}
	s.turn.L = &s.mu
	return s
}

// Do runs f as the loop's thread would: f may use the engine, and sessions.
func (s *Server) Do(f func(e *Engine)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s.engine)
	s.submit()
}

// Shutdown calls Shutdown of every session.
func (s *Server) Shutdown() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for session := range s.sessions {
		session.Shutdown()
	}
}

// Close closes all connections and waits for their goroutines.
func (s *Server) Close() {
	s.mu.Lock()
	for _, conn := range s.sessions {
		_ = conn.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// Serve accepts connections, makes the handshake that cfg describes and serves
// them until ctx ends; then it closes all.
func (s *Server) Serve(ctx context.Context, l net.Listener, gate *nbd.Gate, cfg nbd.HandshakeConfig) error {
	shake := func(ctx context.Context, conn net.Conn) (*nbd.Negotiated, error) {
		return nbd.Handshake(ctx, conn, cfg)
	}
	err := gate.Serve(ctx, l, shake, s.Start)
	s.Close()
	return err
}

// Start begins a session on a negotiated connection.
func (s *Server) Start(n *nbd.Negotiated) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &pump{server: s, conn: n.Conn}
	p.session = nbd.NewSession(n, &s.batch, nbd.Options{
		Hangup: func(error) { p.ending = true },
	})
	s.sessions[p.session] = n.Conn
	s.wg.Go(p.receive)
	s.wg.Go(p.send)
}

// submit lets the engine take the batch until there is none; the lock is held.
func (s *Server) submit() {
	for len(s.batch.Requests) > 0 {
		s.engine.Submit(&s.batch)
	}
	s.turn.Broadcast()
}

// pump moves the bytes of one connection. Its fields are guarded by the
// server's lock.
type pump struct {
	server  *Server
	conn    net.Conn
	session *nbd.Session
	ending  bool
}

func (p *pump) receive() {
	s := p.server
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	for !p.ending && err == nil {
		room := p.session.Room()
		if len(room) == 0 {
			s.turn.Wait()
			continue
		}
		s.mu.Unlock()
		n, e := p.conn.Read(room)
		s.mu.Lock()
		if n > 0 {
			err = p.session.Received(n)
			s.submit()
		}
		err = errors.Join(err, e)
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	p.ending = true
	s.turn.Broadcast()
	_ = p.conn.Close()
	delete(s.sessions, p.session)
	p.session.Closed(err)
}

func (p *pump) send() {
	s := p.server
	s.mu.Lock()
	defer s.mu.Unlock()
	var pieces net.Buffers
	for !p.ending {
		out := p.session.Output()
		if len(out) == 0 {
			s.turn.Wait()
			continue
		}
		pieces = append(pieces[:0], out...)
		sending := pieces // WriteTo eats it
		s.mu.Unlock()
		n, err := sending.WriteTo(p.conn)
		s.mu.Lock()
		if p.ending {
			break
		}
		p.session.Sent(int(n))
		s.submit()
		if err != nil || p.ending {
			p.ending = true
			_ = p.conn.Close() // wakes receive
		}
	}
}
