// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/twinbd/twinbd/internal/crowd"
	"github.com/twinbd/twinbd/internal/trust"
	"github.com/twinbd/twinbd/mirror"
)

// The accepting half of the connections between the nodes. Until it has shown a
// key, whoever connects is a stranger: there is room for so many, and one more
// takes the place of the one that has been there for the longest, of one that does
// not come from an address of the peer first. The peer itself has a bound for each
// kind of connection; there its newest is worth most.

const (
	maxStrangers = 64

	// A node has one connection for beats to each address, and a question or two;
	// what is beyond is left over from connections that broke unnoticed.
	maxBeats  = 8 // for each address of this node
	maxCalls  = 16
	maxRelays = 8

	// ranks of strangers
	rankPeerAddress = 1
)

// door is who is let in where the peer connects.
type door struct {
	strangers *crowd.List
	kinds     map[string]*crowd.List
	addresses map[netip.Addr]bool // of the peer
	volumes   int
	log       *slog.Logger // of what strangers can cause
}

func newDoor(n *Node) door {
	d := door{
		strangers: &crowd.List{Most: maxStrangers},
		kinds: map[string]*crowd.List{
			kindBeat:  {Most: maxBeats * max(len(n.self.Address), 1)},
			kindCall:  {Most: maxCalls},
			kindRelay: {Most: maxRelays},
		},
		addresses: make(map[netip.Addr]bool),
		log:       crowd.Quiet(n.log),
	}
	for i := range n.cfg.Services {
		d.volumes += len(n.cfg.Services[i].Volumes)
	}
	for _, at := range n.peer.Address {
		d.addresses[at.Addr().Unmap()] = true
	}
	return d
}

// most is how many connections may be there at once: all that are listed, and a
// link of each volume with the one that replaces it.
func (d *door) most() int {
	n := d.strangers.Most + 4*d.volumes + crowd.Leaving
	for _, list := range d.kinds {
		n += list.Most
	}
	return n
}

// stranger lets a fresh connection in.
func (d *door) stranger(conn net.Conn) *crowd.Guest {
	g := d.strangers.Enter(crowd.Host(conn.RemoteAddr()), func() { conn.Close() })
	if at, err := netip.ParseAddrPort(conn.RemoteAddr().String()); err == nil && d.addresses[at.Addr().Unmap()] {
		g.Rank(rankPeerAddress)
	}
	return g
}

// known gives a connection of the peer its place among those of its kind, and
// returns what gives it back.
func (d *door) known(kind string, conn net.Conn) (leave func()) {
	list := d.kinds[kind]
	if list == nil {
		return func() {}
	}
	return list.Enter("", func() { underneath(conn).Close() }).Leave
}

// serve accepts connections from one listener until ctx ends.
func (p *peers) serve(ctx context.Context, l net.Listener) error {
	return crowd.Accept(ctx, l, p.door.log, p.door.most(), func(raw net.Conn) {
		stranger := p.door.stranger(raw)
		conn, hello, err := p.accept(ctx, raw)
		stranger.Leave()
		if p.noteAccept(hello, err); err != nil {
			return
		}
		defer p.door.known(hello.Kind, conn)()
		p.take(ctx, conn, hello)
	})
}

// accept does the acceptor's part: keys, preamble, welcome.
func (p *peers) accept(ctx context.Context, raw net.Conn) (net.Conn, preamble, error) {
	ctx, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	var hello preamble
	conn, err := p.secure(ctx, raw, true)
	if err != nil {
		return nil, hello, err
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	err = readAtMost(conn, &hello, maxPreamble)
	if err == nil {
		err = p.check(hello)
		var answer welcome
		if err != nil {
			answer.Error = err.Error()
		}
		err = errors.Join(err, writeMessage(conn, answer))
	}
	if !stop() {
		err = errors.Join(err, ctx.Err())
	}
	if err != nil {
		conn.Close()
		return nil, hello, fmt.Errorf("connection from %s: %w", raw.RemoteAddr(), err)
	}
	return conn, hello, nil
}

// check refuses who does not belong here.
func (p *peers) check(h preamble) error {
	n := p.node
	switch {
	case h.Oldest > mirror.ProtocolVersion || h.Protocol < mirror.ProtocolMinVersion:
		return fmt.Errorf("%s speaks protocol %d to %d, this node %d to %d: upgrade the older of the two",
			n.peer.Name, h.Oldest, h.Protocol, mirror.ProtocolMinVersion, mirror.ProtocolVersion)
	case h.Cluster != n.cfg.Cluster:
		return fmt.Errorf("this node belongs to cluster %q, not %.64q", n.cfg.Cluster, h.Cluster)
	case h.From == n.self.Name:
		return fmt.Errorf("both nodes say that they are %q: check --node or the host names", h.From)
	case h.From != n.peer.Name:
		return fmt.Errorf("node %.64q is not the peer of %q", h.From, n.self.Name)
	case h.Kind == kindCall, h.Kind == kindBeat:
		return nil
	case h.Kind == kindRelay && n.client == nil:
		return fmt.Errorf("%s has no witness", n.self.Name)
	case h.Kind == kindRelay:
		return nil
	case h.Kind != kindData && h.Kind != kindBulk || len(h.Link) != 32:
		return fmt.Errorf("connection of kind %.20q is not known here", h.Kind)
	case n.volume(h.Volume) == nil:
		return fmt.Errorf("volume %.80q is not in the configuration of %s", h.Volume, n.self.Name)
	}
	return n.volume(h.Volume).service.mayConnect()
}

// take gives an accepted connection to what it is for.
func (p *peers) take(ctx context.Context, conn net.Conn, h preamble) {
	switch h.Kind {
	case kindCall:
		p.node.answerCalls(ctx, conn)
	case kindBeat:
		p.knocked()
		p.hear(ctx, conn)
	case kindRelay:
		p.node.relay(ctx, conn)
	case kindData:
		p.mu.Lock()
		if old, ok := p.half[h.Volume]; ok { // its bulk connection never came
			old.conn.Close()
		}
		p.half[h.Volume] = halfLink{h.Link, conn}
		p.mu.Unlock()
		time.AfterFunc(greetTimeout, func() { p.forgetHalf(h, conn) })
	case kindBulk:
		p.mu.Lock()
		data := p.half[h.Volume]
		if data.link == h.Link {
			delete(p.half, h.Volume)
		}
		p.mu.Unlock()
		if data.link != h.Link {
			conn.Close()
			return
		}
		if err := p.node.volume(h.Volume).connect(ctx, data.conn, conn); err != nil {
			p.node.log.Warn("volume not connected", "volume", h.Volume, "error", err)
		}
	}
}

// forgetHalf closes a data connection whose bulk connection has not come.
func (p *peers) forgetHalf(h preamble, conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.half[h.Volume].conn == conn {
		delete(p.half, h.Volume)
		conn.Close()
	}
}

// noteAccept remembers why the peer was refused. It dials volumes only from one
// side, so the other learns here what is wrong. What strangers want is nothing
// of the status. Who tries again and again is in the log once a minute.
func (p *peers) noteAccept(h preamble, err error) {
	_, wrongKey := errors.AsType[*trust.WrongKey](err)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err == nil:
		p.refused = ""
		return
	case wrongKey, h.From != "":
		p.refused = err.Error()
	}
	why := err.Error()
	if cause := errors.Unwrap(err); cause != nil {
		why = cause.Error() // without the other side's port
	}
	if now := p.node.clock(); why != p.turned.why || now-p.turned.at >= time.Minute {
		p.turned.why, p.turned.at = why, now
		p.door.log.Warn("connection refused", "error", err)
	}
}
