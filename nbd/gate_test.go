// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener whose connections are pipes made by dial.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	fail   error // of the next Accept
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	if err := p.fail; err != nil {
		p.fail = nil
		return nil, err
	}
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "unix"} }

func (p *pipes) dial() net.Conn {
	client, server := net.Pipe()
	p.conns <- server
	return client
}

// gateRig serves a gate on pipes, inside a bubble.
func gateRig(t *testing.T, g *Gate, l *pipes) (admitted chan *Negotiated, stop func() error) {
	ctx, cancel := context.WithCancel(t.Context())
	admitted = make(chan *Negotiated, 100)
	ended := make(chan error, 1)
	shake := func(ctx context.Context, c net.Conn) (*Negotiated, error) {
		return Handshake(ctx, c, HandshakeConfig{Exports: catalogue{}, Timeout: time.Hour})
	}
	go func() { ended <- g.Serve(ctx, l, shake, func(n *Negotiated) { admitted <- n }) }()
	return admitted, func() error {
		cancel()
		return <-ended
	}
}

// TestIdleCrowd: thousands that connect and say nothing neither keep an honest
// client out nor make the server hold more than its limit.
func TestIdleCrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, l := NewGate(GateConfig{Handshakes: 20}), newPipes()
		admitted, stop := gateRig(t, g, l)
		for range 10_000 {
			l.dial()
		}
		synctest.Wait()
		shaking := g.shaking.Len()
		if shaking != 20 {
			t.Errorf("%d handshakes are in progress", shaking)
		}
		c, err := NewClient(t.Context(), l.dial(), "vol", nil)
		if err != nil {
			t.Fatal(err)
		}
		n := <-admitted
		if n.Export.Name != "vol" || g.Connections() != 1 {
			t.Errorf("%q was admitted, %d connections", n.Export.Name, g.Connections())
		}
		_ = n.Conn.Close()
		_ = c.Close()
		n.Done()
		n.Done()
		if g.Connections() != 0 {
			t.Errorf("%d connections after the only one ended", g.Connections())
		}
		start := time.Now()
		for {
			if g.shaking.Len() == 0 {
				break
			}
			<-time.After(time.Second)
		}
		if lasted := time.Since(start); lasted > DefaultHandshakeTimeout+time.Second {
			t.Errorf("the silent ones were there for %v", lasted)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestConnectionLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, l := NewGate(GateConfig{Connections: 2}), newPipes()
		admitted, stop := gateRig(t, g, l)
		var clients []*Client
		for range 2 {
			c, err := NewClient(t.Context(), l.dial(), "", nil)
			if err != nil {
				t.Fatal(err)
			}
			clients = append(clients, c)
		}
		first, second := <-admitted, <-admitted
		first.asked() // both have: nobody gives way
		second.asked()
		if c, err := NewClient(t.Context(), l.dial(), "", nil); err == nil {
			if err := c.Flush(); err == nil {
				t.Error("a third connection was served")
			}
			_ = c.Close()
		}
		_ = first.Conn.Close()
		first.Done()
		c, err := NewClient(t.Context(), l.dial(), "", nil)
		if err != nil {
			t.Fatalf("after a connection ended: %v", err)
		}
		last := <-admitted
		_ = second.Conn.Close()
		_ = last.Conn.Close()
		_ = clients[0].Close()
		if err := stop(); err != nil {
			t.Error(err)
		}
		go func() { _ = c.Close() }()
		_ = clients[1].Close()
	})
}

// TestIdleClientsGiveWay: who has shaken hands and never asks for anything cannot
// keep a client out, and whoever has asked is never sent away.
func TestIdleClientsGiveWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, l := NewGate(GateConfig{Connections: 4}), newPipes()
		admitted, stop := gateRig(t, g, l)
		enter := func() (*Client, *Negotiated) {
			c, err := NewClient(t.Context(), l.dial(), "", nil)
			if err != nil {
				t.Fatal(err)
			}
			return c, <-admitted
		}
		c, busy := enter()
		busy.asked()
		busy.OnEvict(func() { t.Error("a client that asks was sent away") })
		clients, sent := []*Client{c}, 0
		all := []*Negotiated{busy}
		for range 100 {
			c, n := enter()
			clients, all = append(clients, c), append(all, n)
			n.OnEvict(func() {
				sent++
				_ = n.Conn.Close()
				n.Done()
			})
		}
		if sent != 97 || g.Connections() != 4 {
			t.Errorf("%d of 100 idle ones were sent away, and %d are there", sent, g.Connections())
		}
		// A volume that hangs closes nobody: there is an end to it all the same.
		hung := NewGate(GateConfig{Connections: 4})
		let := 0
		for range 100 {
			if hung.place(&Negotiated{Conn: busy.Conn}) {
				let++
			}
		}
		if let != 8 {
			t.Errorf("%d were let in while none was closed", let)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		for _, n := range all {
			_ = n.Conn.Close()
		}
		for _, c := range clients {
			go func() { _ = c.Close() }()
		}
	})
}

func TestAcceptErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, l := NewGate(GateConfig{}), newPipes()
		l.fail = errors.New("too many open files")
		admitted, stop := gateRig(t, g, l)
		c, err := NewClient(t.Context(), l.dial(), "vol", nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = (<-admitted).Conn.Close()
		_ = c.Close()
		if err := stop(); err != nil {
			t.Error(err)
		}
		_ = l.Close()
		if err := g.Serve(t.Context(), l, nil, nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("serving a closed listener: %v", err)
		}
	})
}
