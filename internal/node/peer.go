// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/internal/loop"
	"github.com/twinbd/twinbd/mirror"
)

// Connections between the nodes. Every connection begins with one preamble from
// who dialled, saying what it is for, and one answer; both are JSON behind a
// length of two bytes. Of each volume the node whose name comes first dials:
// a data and a bulk connection, which find each other by the link's number.
// For heartbeats each node dials every address of the other (beat.go); besides
// there are questions (call.go), and a way to the witness through the peer.

// preamble says what a connection is for.
type preamble struct {
	Protocol int    `json:"protocol"` // newest version that the node speaks
	Oldest   int    `json:"oldest"`   // oldest
	Cluster  string `json:"cluster"`
	From     string `json:"from"`
	Kind     string `json:"kind"`             // data, bulk, beat, call or relay
	Volume   string `json:"volume,omitempty"` // data and bulk
	Link     string `json:"link,omitempty"`   // data and bulk: joins the two
}

// welcome is the answer to a preamble.
type welcome struct {
	Error string `json:"error,omitempty"`
}

const (
	kindData = "data"
	kindBulk = "bulk"
	kindBeat = "beat"
	kindCall = "call"

	// kindRelay asks to be put through to the witness: what follows is between
	// the asker and the witness, keys included.
	kindRelay = "relay"

	maxPreamble  = 4 << 10
	greetTimeout = 5 * time.Second
	dialTimeout  = 2 * time.Second        // of one path; then the next is tried
	redialAfter  = 100 * time.Millisecond // the first time
	redialAtMost = 2 * time.Second
)

// peers is a node's side of the connections with its peer.
type peers struct {
	node      *Node
	listeners []net.Listener
	paths     []*path

	mu       sync.Mutex
	half     map[string]halfLink          // data connections that wait for their bulk, by volume
	heard    map[netip.Addr]time.Duration // when a beat last came from there
	knock    chan struct{}                // closed, and made anew, when the peer connects to send beats
	door     door
	problems map[string]string // why the last dial of each way failed; empty: it did not
	refused  string            // why the peer's last one was refused here
	turned   struct {          // the refusal that is in the log
		why string
		at  time.Duration
	}
}

// halfLink is a data connection whose bulk connection has not come yet.
type halfLink struct {
	link string
	conn net.Conn
}

func listenPeers(n *Node) (*peers, error) {
	p := &peers{
		node: n, half: make(map[string]halfLink), heard: make(map[netip.Addr]time.Duration), knock: make(chan struct{}),
		problems: make(map[string]string), door: newDoor(n),
	}
	for _, at := range n.peer.Address {
		p.paths = append(p.paths, newPath(at))
	}
	for _, at := range n.self.Address {
		l, err := net.Listen("tcp", at.String())
		if err != nil {
			p.close()
			return nil, &control.Refusal{
				Message: fmt.Sprintf("listen for the peer: %v", err),
				Hint:    fmt.Sprintf("node.%s.address must be this machine's, with a port that no other process has", n.self.Name),
			}
		}
		p.listeners = append(p.listeners, l)
	}
	return p, nil
}

func (p *peers) close() {
	for _, l := range p.listeners {
		l.Close()
	}
}

// keepConnected dials the volume's links whenever there are none, until ctx
// ends.
func (p *peers) keepConnected(ctx context.Context, v *volume) error {
	pause := redialAfter
	for ctx.Err() == nil {
		began := v.loop.Clock()
		err := v.service.mayConnect()
		if err == nil {
			err = p.connectVolume(ctx, v)
		}
		p.note("volume "+v.cfg.Name, err)
		if err == nil && v.loop.Clock()-began > 2*redialAtMost {
			pause = redialAfter
		}
		if p.waitForKnock(ctx, pause) {
			pause = redialAfter
			continue
		}
		pause = min(2*pause, redialAtMost)
		if err == nil {
			pause = min(pause, redialAtMost/4)
		}
	}
	return nil
}

// waitForKnock pauses until the peer connects to send beats, and reports whether
// it did: who has just started does so at once, so that nobody waits for the
// dialler's next try.
func (p *peers) waitForKnock(ctx context.Context, pause time.Duration) bool {
	p.mu.Lock()
	knock := p.knock
	p.mu.Unlock()
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-knock:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

// knocked wakes the diallers of volumes.
func (p *peers) knocked() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.knock)
	p.knock = make(chan struct{})
}

// note remembers how one way to the peer went, a path of beats or a volume, and
// logs it when it is news.
func (p *peers) note(way string, err error) {
	why := ""
	if err != nil {
		why = err.Error()
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		why = op.Err.Error() // without the port of this side, which is another one each time
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if why != "" && why != p.problems[way] {
		p.node.log.Warn("peer not reached", "way", way, "error", err)
	}
	p.problems[way] = why
}

// problem is what is wrong with the ways to the peer, or empty.
func (p *peers) problem() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, way := range slices.Sorted(maps.Keys(p.problems)) {
		if why := p.problems[way]; why != "" {
			return way + ": " + why
		}
	}
	return p.refused
}

// connectVolume makes one link of a volume and returns when it has ended.
func (p *peers) connectVolume(ctx context.Context, v *volume) error {
	var id [16]byte
	rand.Read(id[:]) // never fails, by its documentation
	h := preamble{Kind: kindData, Volume: v.cfg.Name, Link: hex.EncodeToString(id[:])}
	data, err := p.dial(ctx, h)
	if err != nil {
		return err
	}
	h.Kind = kindBulk
	bulk, err := p.dial(ctx, h)
	if err != nil {
		data.Close()
		return err
	}
	return v.connect(ctx, data, bulk)
}

func (p *peers) preamble(h preamble) preamble {
	h.Protocol, h.Oldest = mirror.ProtocolVersion, mirror.ProtocolMinVersion
	h.Cluster, h.From = p.node.cfg.Cluster, p.node.self.Name
	return h
}

// dial connects to the peer by the first of its addresses that works.
func (p *peers) dial(ctx context.Context, h preamble) (net.Conn, error) {
	h = p.preamble(h)
	var errs []error
	for _, at := range p.node.peer.Address {
		conn, err := p.dialAt(ctx, at, h)
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func (p *peers) dialAt(ctx context.Context, at netip.AddrPort, h preamble) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	raw, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", at.String())
	if err != nil {
		return nil, err
	}
	conn, err := p.secure(ctx, raw, false)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	var answer welcome
	err = writeMessage(conn, h)
	if err == nil {
		err = readMessage(conn, &answer)
	}
	if !stop() {
		err = errors.Join(err, ctx.Err())
	}
	if err == nil && answer.Error != "" {
		err = errors.New(answer.Error)
	}
	if err != nil {
		conn.Close()
		if p.node.keys != nil {
			err = p.node.keys.Explain(p.node.peer.Name, err)
		}
		return nil, fmt.Errorf("%s at %s: %w", p.node.peer.Name, at, err)
	}
	return conn, nil
}

// secure wraps a connection so that a loop can drive it, and with keys makes
// sure that the peer is at the other end.
func (p *peers) secure(ctx context.Context, raw net.Conn, server bool) (net.Conn, error) {
	n := p.node
	if n.keys == nil {
		return raw, nil
	}
	config := n.keys.Client(n.peer.Name)
	if server {
		config = n.keys.Server(n.peer.Name)
	}
	conn, err := loop.Secure(ctx, raw, config, server)
	if err != nil {
		return nil, n.keys.Explain(n.peer.Name, err)
	}
	return conn, nil
}

// writeMessage sends a value as JSON behind its length.
func writeMessage(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) > 1<<16-1 {
		return fmt.Errorf("message of %d bytes is too long", len(b))
	}
	return writeText(w, b)
}

func writeText(w io.Writer, b []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
	return err
}

// underneath is the connection below TLS and the loop's shim.
func underneath(conn net.Conn) net.Conn {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	if s, ok := conn.(*loop.Shim); ok {
		conn = s.Conn
	}
	return conn
}

// readMessage reads what writeMessage sent, and not a byte more.
func readMessage(r io.Reader, v any) error { return readAtMost(r, v, 1<<16-1) }

// readAtMost is readMessage of one that has no more bytes than most.
func readAtMost(r io.Reader, v any, most int) error {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	length := int(binary.BigEndian.Uint16(head[:]))
	if length > most {
		return fmt.Errorf("message has %d bytes, at most %d are taken here", length, most)
	}
	b := make([]byte, length)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("message is not understood: %w", err)
	}
	return nil
}

// wait pauses, but not beyond the end of ctx.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
