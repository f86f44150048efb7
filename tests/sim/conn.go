// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"time"

	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/mirror"
)

// end is one node's end of the two connections of a session: data and bulk.
type end struct {
	volume *volume // that it was made for
	peer   *end
	links  [2]*mirror.Link // nil until it has joined
	open   int             // links that the engine uses
	closed bool            // no socket is there any more
	mute   bool            // nothing passes on it, either way, and nobody is told
	flows  [2]flow         // to the peer
}

// flow is one connection in one direction: bytes in their order.
type flow struct {
	arrives time.Duration // the last of them
	under   int           // bytes on their way
	inbox   [][]byte      // arrived, and not taken
	ends    bool          // after what is in inbox
	frame   int           // bytes that the frame under way has yet
	header  []byte        // of the frame under way, as far as it was sent
	last    []byte        // a whole batch that was sent, for later
	next    uint64        // sequence of the next batch
	busy    bool          // a delivery is on its way
}

const (
	data = iota
	bulk
)

const socketBuffer = 64 << 10

var errReset = errors.New("connection reset by the peer")

// dial connects a volume to the peer whenever it is not, as only one node does.
func (v *volume) dial() {
	w, p := v.process.node.world, v.process
	if v.end == nil && p.mayConnect() && w.reaches(alpha, beta) {
		other := w.nodes[beta].process
		if other != nil && !other.frozen && other.mayConnect() {
			w.join(v, other.volumes[v.ledger.id])
		}
	}
	p.after(between(w.net, 20*time.Millisecond, 300*time.Millisecond), v.dial)
}

func (p *process) mayConnect() bool { return !p.standing && !p.parting }

// join makes fresh connections of two volumes.
func (w *world) join(a, b *volume) {
	x, y := &end{volume: a}, &end{volume: b}
	x.peer, y.peer = y, x
	a.end = x // the dialler knows of it at once
	for _, e := range [...]*end{x, y} {
		e.volume.after(w.delay(alpha, beta), e.enter)
	}
}

// enter gives the connections to the engine.
func (e *end) enter() {
	v := e.volume
	if e.closed {
		return
	}
	if v.hung() >= diskTimeout {
		e.hangUp(true)
		return
	}
	e.open = 2
	d, b := v.engine.Connect(v.process.node.clock())
	v.end = e
	for _, l := range [...]*mirror.Link{d, b} {
		l.Dropped = e.dropped
	}
	e.links = [2]*mirror.Link{d, b}
	for k := range e.links {
		e.deliver(k)
	}
	v.dispatch()
}

// dropped: the engine is done with one of the connections.
func (e *end) dropped() {
	if e.open--; e.open == 0 {
		e.hangUp(true)
	}
}

// hangUp closes the sockets. The other end is told, unless the machine is off.
func (e *end) hangUp(told bool) {
	if e.closed {
		return
	}
	e.closed = true
	v := e.volume
	if v.end == e {
		v.end = nil
	}
	for k := range e.flows {
		f := &e.flows[k]
		if n := len(f.last); n > 0 && k == data {
			v.ledger.old[v.process.node.id] = f.last
		}
		if told {
			e.carry(k, nil)
		}
	}
}

// pump sends what the engine has to say.
func (v *volume) pump() {
	if e := v.end; e != nil && e.open > 0 {
		for k := range e.links {
			e.send(k)
		}
	}
}

// flushOutput sends all of it, as before a session is ended by plan.
func (v *volume) flushOutput() {
	for e := v.end; e != nil && e.open > 0 && e.links[data].Output() != nil && len(e.links[data].Output()) > 0; {
		e.flows[data].under = 0
		e.send(data)
	}
}

// send moves some bytes of a link into its connection.
func (e *end) send(k int) {
	f, w := &e.flows[k], e.volume.process.node.world
	for e.open > 0 && !e.closed {
		out := e.links[k].Output()
		if len(out) == 0 {
			return
		}
		room := socketBuffer - f.under
		if room <= 0 {
			return // what arrives makes room
		}
		limit := room
		if w.net.IntN(4) == 0 {
			limit = 1 + w.net.IntN(room)
		}
		size := 0
		for _, b := range out {
			size += len(b)
		}
		p := make([]byte, 0, min(size, limit))
		for _, b := range out {
			p = append(p, b[:min(len(b), cap(p)-len(p))]...)
		}
		f.follow(p)
		e.carry(k, p)
		e.links[k].Sent(len(p))
		if k == data && e.volume.ledger.haunts > 0 {
			e.haunt()
		}
		if e.volume.ledger.spoil > 0 && k == data && w.moods.IntN(4) == 0 {
			e.volume.ledger.spoil--
			p[w.moods.IntN(len(p))] ^= 1 << w.moods.IntN(8)
			w.say("%s: a bit is changed on the way", e.volume.store)
		}
	}
}

// A frame's header, and where in it what stands (docs/PROTOCOL.md).
const (
	frameHeader   = 40
	frameType     = 4
	frameSequence = 16
	frameCount    = 24
	frameLength   = 28
	frameSum      = 36

	typeBatch = 6
)

// follow keeps account of where frames begin and end.
func (f *flow) follow(p []byte) {
	for len(p) > 0 {
		if f.frame > 0 {
			n := min(f.frame, len(p))
			if len(f.header) < 2048 {
				f.header = append(f.header, p[:n]...)
			}
			if f.frame -= n; f.frame == 0 && len(f.header) < 2048 && f.header[frameType] == typeBatch {
				f.last = append(f.last[:0], f.header...)
			}
			if p = p[n:]; f.frame == 0 {
				f.header = f.header[:0]
			}
			continue
		}
		n := min(frameHeader-len(f.header), len(p))
		f.header = append(f.header, p[:n]...)
		p = p[n:]
		if len(f.header) == frameHeader {
			if f.header[frameType] == typeBatch {
				f.next = binary.BigEndian.Uint64(f.header[frameSequence:]) + uint64(binary.BigEndian.Uint32(f.header[frameCount:]))
			}
			if f.frame = int(binary.BigEndian.Uint32(f.header[frameLength:])); f.frame == 0 {
				f.header = f.header[:0]
			}
		}
	}
}

// between reports whether the next byte begins a frame.
func (f *flow) between() bool { return f.frame == 0 && len(f.header) == 0 }

// haunt puts changes of an earlier session between the frames of this one, with the
// sequence that is due, as luck may have it: nothing but the session gives them away.
func (e *end) haunt() {
	v, f := e.volume, &e.flows[data]
	old := append([]byte(nil), v.ledger.old[v.process.node.id]...)
	if len(old) == 0 || f.next == 0 || !f.between() || e.closed {
		return
	}
	v.ledger.haunts--
	v.process.node.world.say("%s sends a frame of an old session", v.store)
	binary.BigEndian.PutUint64(old[frameSequence:], f.next)
	binary.BigEndian.PutUint32(old[frameSum:], crc32.Checksum(old[:frameSum], block.Castagnoli))
	e.carry(data, old)
}

// carry brings bytes to the other end, or, without any, word that this one is
// closed.
func (e *end) carry(k int, p []byte) {
	f, n := &e.flows[k], e.volume.process.node
	w := n.world
	f.under += len(p)
	at := w.now + w.delay(n.id, 1-n.id)
	if k == bulk {
		at += between(w.net, 0, 4*time.Millisecond)
	}
	f.arrives = max(f.arrives+1, at)
	w.transmit(n.id, 1-n.id, f.arrives, func() { e.arrive(k, p) })
}

// arrive: bytes are at the other machine.
func (e *end) arrive(k int, p []byte) {
	f, to := &e.flows[k], e.peer
	n := to.volume.process.node
	switch {
	case e.mute, to.volume.process.ended && !n.powered:
		return // nobody is there to say so
	case to.closed:
		if p != nil && !e.closed {
			e.reset()
		}
		return
	case p == nil:
		f.ends = true
	default:
		f.inbox = append(f.inbox, p)
	}
	to.deliver(k)
}

// reset: the other machine has answered that no such connection is there.
func (e *end) reset() {
	w, n := e.volume.process.node.world, e.volume.process.node
	w.transmit(1-n.id, n.id, w.now+w.delay(1-n.id, n.id), func() {
		if e.mute {
			return
		}
		e.volume.run(func() {
			if e.open > 0 {
				e.links[data].Closed(errReset)
				e.volume.dispatch()
			}
		})
	})
}

// deliver gives a link what has arrived for it.
func (e *end) deliver(k int) {
	f := &e.peer.flows[k]
	if f.busy || e.links[k] == nil || len(f.inbox) == 0 && !f.ends {
		return
	}
	f.busy = true
	e.volume.run(func() {
		f.busy = false
		e.receive(k)
	})
}

func (e *end) receive(k int) {
	v, f := e.volume, &e.peer.flows[k]
	for e.open > 0 && len(f.inbox) > 0 {
		p := f.inbox[0]
		n := copy(e.links[k].Room(), p)
		if n == 0 {
			v.after(300*time.Microsecond, func() { e.deliver(k) }) // it drains
			return
		}
		if f.under -= n; n == len(p) {
			f.inbox = f.inbox[1:]
		} else {
			f.inbox[0] = p[n:]
		}
		if err := e.links[k].Received(n); err != nil {
			v.process.node.world.say("%s ends the session: %v", v.store, err)
		}
		v.dispatch()
	}
	if e.open == 0 {
		f.inbox = nil
		return
	}
	if o := e.peer; !o.closed {
		o.volume.run(o.volume.dispatch) // there is room again
	}
	if f.ends && len(f.inbox) == 0 {
		e.links[k].Closed(nil)
		v.dispatch()
	}
}
