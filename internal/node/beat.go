// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/failover"
)

// Heartbeats. A node sends its beats on a connection of its own to each address
// of the peer, so that each network is a path of its own; what is heard on any
// of them counts, the newest wins. A path keeps the newest beat of each service
// only: one that is late is worth nothing.

// beatMessage is one beat of one service.
type beatMessage struct {
	Service string        `json:"service"`
	Beat    failover.Beat `json:"beat"`
	About   about         `json:"about"`
}

// about is what a node says of itself besides, for people and for addresses.
type about struct {
	State    control.State  `json:"state"`
	Colour   control.Colour `json:"colour"`
	Reason   string         `json:"reason"`
	UpToDate bool           `json:"uptodate"`
	Hardware []string       `json:"hardware,omitempty"` // from where it answers for the virtual addresses
	Config   string         `json:"config"`             // digest of the configuration
	Hung     float64        `json:"hung,omitempty"`     // seconds for which its data path has stood still
	Time     time.Time      `json:"time"`               // by its wall clock; decides nothing
}

// path is one way to the peer.
type path struct {
	at   netip.AddrPort
	wake chan struct{}

	mu     sync.Mutex
	latest map[string][]byte // by service
}

func newPath(at netip.AddrPort) *path {
	return &path{at: at, wake: make(chan struct{}, 1), latest: make(map[string][]byte)}
}

// say sends a service's beat on every path.
func (p *peers) say(s *service, b failover.Beat) {
	text, err := json.Marshal(beatMessage{Service: s.cfg.Name, Beat: b, About: s.aboutMe()})
	if err != nil {
		panic("node: marshal a beat: " + err.Error())
	}
	for _, w := range p.paths {
		w.put(s.cfg.Name, text)
	}
}

func (w *path) put(service string, text []byte) {
	w.mu.Lock()
	w.latest[service] = text
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *path) take() [][]byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all [][]byte
	for name, text := range w.latest {
		all = append(all, text)
		delete(w.latest, name)
	}
	return all
}

// beatOn keeps one path connected and sends what there is to say on it.
func (p *peers) beatOn(ctx context.Context, w *path) error {
	for ctx.Err() == nil {
		p.note(w.at.String(), p.beatUntilBroken(ctx, w))
		p.waitForKnock(ctx, p.node.heartbeat())
	}
	return nil
}

func (p *peers) beatUntilBroken(ctx context.Context, w *path) error {
	limit := p.node.shortestTimeout()
	dialling, cancel := context.WithTimeout(ctx, max(limit, redialAfter))
	conn, err := p.dialAt(dialling, w.at, p.preamble(preamble{Kind: kindBeat}))
	cancel()
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	limitUnacknowledged(conn, limit)
	p.note(w.at.String(), nil)
	over := make(chan struct{})
	go func() {
		io.Copy(io.Discard, conn) // the peer says nothing here: it only ends
		close(over)
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-over:
			return errBeatEnded
		case <-w.wake:
		}
		for _, text := range w.take() {
			conn.SetWriteDeadline(time.Now().Add(limit))
			if err := writeText(conn, text); err != nil {
				return err
			}
		}
	}
}

var errBeatEnded = errors.New("the peer has closed the connection")

// beatsPerSecond is how many beats are taken from one path in a second, and
// maxHeard from how many addresses they may have come.
const (
	beatsPerSecond = 1000
	maxHeard       = 256
)

// hear takes the peer's beats from one path until it ends.
func (p *peers) hear(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	for n, since := 0, p.node.clock(); ; n++ {
		// The peer says something a few times in a heartbeat. One that has gone mad
		// waits in its socket, and not this node for it.
		if now := p.node.clock(); now-since >= time.Second {
			n, since = 0, now
		} else if n >= beatsPerSecond {
			wait(ctx, since+time.Second-now)
		}
		conn.SetReadDeadline(time.Now().Add(time.Minute))
		var b beatMessage
		if readMessage(conn, &b) != nil {
			return
		}
		if err := b.Beat.Check(p.node.clock(), p.node.incarnation, p.node.self.Name, p.node.peer.Name); err != nil {
			p.door.log.Warn("heartbeat refused", "service", b.Service, "error", err)
			return
		}
		p.heardFrom(conn.RemoteAddr().String())
		if s := p.node.service(b.Service); s != nil {
			s.heard(ctx, &b)
		}
	}
}

func (p *peers) heardFrom(remote string) {
	if at, err := netip.ParseAddrPort(remote); err == nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		if _, ok := p.heard[at.Addr()]; ok || len(p.heard) < maxHeard {
			p.heard[at.Addr()] = p.node.clock()
		}
	}
}

// silent reports whether a beat has come from an address of the peer before, and
// none for so long.
func (p *peers) silent(remote string, limit time.Duration) bool {
	at, err := netip.ParseAddrPort(remote)
	p.mu.Lock()
	defer p.mu.Unlock()
	last, ever := p.heard[at.Addr()]
	return err == nil && ever && p.node.clock()-last > limit
}

// heard gives the machine a beat.
func (s *service) heard(ctx context.Context, b *beatMessage) {
	s.mu.Lock()
	differs := b.About.Config != s.about.Config
	s.about = b.About
	s.mu.Unlock()
	s.node.compareClocks(b.About.Time)
	if differs {
		s.node.differing(ctx, b.About.Config)
	}
	if b.Beat.Serving {
		s.app.addresses.peerServes()
	}
	if b.Beat.Addressed {
		s.app.addresses.stopMinding()
	}
	s.put(ctx, func(m *failover.Machine, now time.Duration) []failover.Action { return m.Heard(now, b.Beat) })
}

// aboutMe is what this node says of itself. Called by run.
func (s *service) aboutMe() about {
	m := &s.machine
	return about{
		State: control.State(m.State()), Colour: control.Colour(m.Colour()), Reason: m.Reason(), UpToDate: m.UpToDate(),
		Hardware: s.app.addresses.hardware(), Config: s.node.digest, Hung: s.hung().Seconds(), Time: s.node.wall(),
	}
}

// heartbeat and shortestTimeout are those of the quickest service: a path serves
// all.
func (n *Node) heartbeat() time.Duration {
	shortest := time.Hour
	for _, s := range n.cfg.Services {
		shortest = min(shortest, s.Pace.Heartbeat)
	}
	return shortest
}

func (n *Node) shortestTimeout() time.Duration {
	shortest := time.Hour
	for _, s := range n.cfg.Services {
		shortest = min(shortest, s.Pace.Timeout)
	}
	return shortest
}
