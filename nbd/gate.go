// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
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
	Connections int           // that have finished it, at once; beyond, new ones are closed. Each may hold twice Options.Bytes
	Timeout     time.Duration // of a handshake; zero means DefaultHandshakeTimeout
	Logger      *slog.Logger
}

// Gate lets connections in: it accepts them, runs their handshakes and counts
// them. An honest handshake takes milliseconds, so whoever opens connections
// and says nothing only ever cuts off himself. One Gate may serve several
// listeners; its methods may be called from any goroutine.
type Gate struct {
	cfg GateConfig

	mu          sync.Mutex
	shaking     list.List // of context.CancelCauseFunc, oldest first
	connections int
}

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
	return &Gate{cfg: cfg}
}

// Connections is how many connections are past their handshake and not Done.
func (g *Gate) Connections() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.connections
}

// Serve accepts connections from l until ctx ends, which closes l, and returns
// when the last handshake is over. Each is given to handshake on a goroutine
// of its own, which usually calls Handshake, and what that agrees on to admit.
// From then on the connection is admit's: to be closed by it, and its place to
// be given back with Negotiated.Done. The error is nil when ctx ended.
func (g *Gate) Serve(ctx context.Context, l net.Listener, handshake func(context.Context, net.Conn) (*Negotiated, error), admit func(*Negotiated)) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	pause := 5 * time.Millisecond
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept: %w", err)
		case err != nil: // out of descriptors, or the client was gone already
			g.cfg.Logger.Warn("accept failed", "address", l.Addr(), "error", err, "pause", pause)
			rest(ctx, pause)
			pause = min(2*pause, time.Second)
			continue
		}
		pause = 5 * time.Millisecond
		wg.Go(func() { g.enter(ctx, conn, handshake, admit) })
	}
}

// rest waits, but not beyond the end of ctx.
func rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// enter takes one connection through its handshake.
func (g *Gate) enter(ctx context.Context, conn net.Conn, handshake func(context.Context, net.Conn) (*Negotiated, error), admit func(*Negotiated)) {
	ctx, cancel := context.WithTimeout(ctx, g.cfg.Timeout)
	defer cancel()
	ctx, cut := context.WithCancelCause(ctx)
	defer cut(nil)
	place := g.begin(cut)
	n, err := handshake(ctx, conn)
	g.end(place)
	if err == nil && !g.count() {
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
	n.done = sync.OnceFunc(g.discount)
	admit(n)
}

// begin notes a handshake, and cuts off the oldest one if there are too many.
func (g *Gate) begin(cut context.CancelCauseFunc) *list.Element {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shaking.Len() >= g.cfg.Handshakes {
		oldest := g.shaking.Front()
		g.shaking.Remove(oldest)
		oldest.Value.(context.CancelCauseFunc)(errCrowded)
	}
	return g.shaking.PushBack(cut)
}

func (g *Gate) end(place *list.Element) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shaking.Remove(place)
}

// count takes a place for a connection, if there is one.
func (g *Gate) count() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.connections >= g.cfg.Connections {
		return false
	}
	g.connections++
	return true
}

func (g *Gate) discount() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.connections--
}
