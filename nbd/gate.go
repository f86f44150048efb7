// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twinbd/twinbd/internal/crowd"
)

// Limits of a gate, where GateConfig has none.
const (
	DefaultHandshakes  = 256
	DefaultConnections = 64
)

// errCrowded ends a handshake that gave way to a newer one.
var errCrowded = errors.New("gave way to a newer connection")

// GateConfig bounds what strangers can make a server hold.
type GateConfig struct {
	Handshakes  int           // at once; beyond, the one that has lasted longest is cut off
	Connections int           // that have finished it, at once; beyond, one that has never asked for anything gives way, else new ones are closed
	Timeout     time.Duration // of a handshake; zero means DefaultHandshakeTimeout
	Logger      *slog.Logger
}

// Gate lets connections in: it accepts them, runs their handshakes and counts
// them. An honest handshake takes milliseconds, so whoever opens connections
// and says nothing only ever cuts off himself; and whoever has shaken hands and
// never asks for anything gives way to newer clients. One Gate may serve several
// listeners; its methods may be called from any goroutine.
type Gate struct {
	cfg     GateConfig
	shaking crowd.List
	clients crowd.List
	open    atomic.Int64 // clients, and those that were sent away and are not closed yet
}

// rankClient is for a client that has asked for something: it keeps its place.
const rankClient = 1

// NewGate returns a gate with the limits of cfg, or the defaults for zeroes.
func NewGate(cfg GateConfig) *Gate {
	if cfg.Handshakes <= 0 {
		cfg.Handshakes = DefaultHandshakes
	}
	if cfg.Connections <= 0 {
		cfg.Connections = DefaultConnections
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = DefaultHandshakeTimeout
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Logger = crowd.Quiet(cfg.Logger)
	g := &Gate{cfg: cfg}
	g.shaking.Most = cfg.Handshakes
	g.clients.Most, g.clients.Keep = cfg.Connections, rankClient
	return g
}

// Connections is how many connections are past their handshake and not Done.
func (g *Gate) Connections() int { return int(g.open.Load()) }

// Serve accepts connections from l until ctx ends, which closes l, and returns
// when the last handshake is over. Each is given to handshake on a goroutine
// of its own, which usually calls Handshake, and what that agrees on to admit.
// From then on the connection is admit's: to be closed by it, and its place to
// be given back with Negotiated.Done. The error is nil when ctx ended.
func (g *Gate) Serve(ctx context.Context, l net.Listener, handshake func(context.Context, net.Conn) (*Negotiated, error), admit func(*Negotiated)) error {
	return crowd.Accept(ctx, l, g.cfg.Logger, g.cfg.Handshakes+crowd.Leaving, func(conn net.Conn) {
		g.enter(ctx, conn, handshake, admit)
	})
}

// enter takes one connection through its handshake.
func (g *Gate) enter(ctx context.Context, conn net.Conn, handshake func(context.Context, net.Conn) (*Negotiated, error), admit func(*Negotiated)) {
	ctx, cancel := context.WithTimeout(ctx, g.cfg.Timeout)
	defer cancel()
	ctx, cut := context.WithCancelCause(ctx)
	defer cut(nil)
	guest := g.shaking.Enter(crowd.Host(conn.RemoteAddr()), func() { cut(errCrowded) })
	n, err := handshake(ctx, conn)
	guest.Leave()
	if err == nil && !g.place(n) {
		n, err = nil, fmt.Errorf("%d connections are open: no more are allowed", g.cfg.Connections)
	}
	if err != nil {
		_ = conn.Close()
		level := slog.LevelWarn
		if errors.Is(err, ErrAborted) || errors.Is(err, ErrLeft) {
			level = slog.LevelDebug
		}
		g.cfg.Logger.Log(ctx, level, "client not let in", "client", conn.RemoteAddr(), "error", err, "cause", context.Cause(ctx))
		return
	}
	admit(n)
}

// place finds a place for a connection, if there is one. Those that were sent
// away and are not closed yet, because their volume hangs, count as well.
func (g *Gate) place(n *Negotiated) bool {
	p := &place{}
	if g.open.Add(1) > 2*int64(g.cfg.Connections) {
		g.open.Add(-1)
		return false
	}
	p.guest = g.clients.Enter(crowd.Host(n.Conn.RemoteAddr()), p.evict)
	if p.guest == nil {
		g.open.Add(-1)
		return false
	}
	p.done = sync.OnceFunc(func() {
		p.guest.Leave()
		g.open.Add(-1)
	})
	n.place = p
	return true
}

// place is a client's among those that have shaken hands.
type place struct {
	guest *crowd.Guest
	done  func()

	mu      sync.Mutex
	evicted bool
	hangUp  func()
}

// evict sends the client away, or does so as soon as somebody says how.
func (p *place) evict() {
	p.mu.Lock()
	p.evicted = true
	hangUp := p.hangUp
	p.mu.Unlock()
	if hangUp != nil {
		hangUp()
	}
}

// OnEvict says how the connection is ended when it has to give its place to
// another: f is called at most once, on any goroutine, and must not wait. Only a
// client that has never asked for anything has to.
func (n *Negotiated) OnEvict(f func()) {
	if n.place == nil {
		return
	}
	n.place.mu.Lock()
	n.place.hangUp = f
	evicted := n.place.evicted
	n.place.mu.Unlock()
	if evicted {
		f()
	}
}

// asked notes that the client has asked for something: it keeps its place.
func (n *Negotiated) asked() {
	if n.place != nil && n.place.guest != nil {
		n.place.guest.Rank(rankClient)
	}
}

// Done gives back the connection's place at the Gate it came through, if any.
// It is called when the connection has ended; again does no harm. A Session
// calls it in Closed.
func (n *Negotiated) Done() {
	if n.place != nil {
		n.place.done()
	}
}
