// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"errors"
	"fmt"
	"io"
	"net"
)

const (
	flushRounds = 16 // outputs that one port may send in a turn before the others' turn
	drainReads  = 64 // reads of what a connection that cannot be written still holds
)

// Port is one connection in a loop. Its methods are called on the loop's
// thread; on a closed port they do nothing.
type Port struct {
	loop   *Loop
	link   link
	stream Stream

	readable bool // found by the last wait
	writable bool
	blocked  bool // the connection took less than there was: wait until writable
	flushing bool

	gate     func() bool // nil, or whether output may leave now
	broken   error       // a write failed: read what is left, then end with this
	distrust bool        // what is left when the other side has gone is void
	ending   bool        // will be finished at the end of the turn
	closed   bool        // finished
	err      error       // what the stream is told
}

// Add takes conn over and joins it to s. It is called on the loop's thread, or
// before Run. conn may be a *net.TCPConn, a *net.UnixConn, a *Shim, a *tls.Conn
// that has shaken hands, or any other net.Conn; nobody else may be using it.
// From then on conn belongs to the loop, and s.Closed says when it has ended.
// On error conn is still the caller's.
func (l *Loop) Add(conn net.Conn, s Stream) (*Port, error) {
	if l.hasEnded() {
		return nil, fmt.Errorf("add connection to loop %s: %w", l.name, ErrStopped)
	}
	k, err := l.newLink(conn)
	if err != nil {
		return nil, fmt.Errorf("add connection to loop %s: %w", l.name, err)
	}
	p := &Port{loop: l, link: k, stream: s}
	l.ports = append(l.ports, p)
	l.again = true
	return p, nil
}

// Flush sends what Output has now, instead of at the end of the turn, as far
// as the connection takes it.
func (p *Port) Flush() {
	if !p.ending {
		p.flush()
	}
}

// Gate lets output leave only while open says so; open is asked right before
// each write, so what it says is as old as that. What is held back stays in the
// stream; a Kick has it looked at again. A connection that ends behind a closed
// gate takes what it held with it.
func (p *Port) Gate(open func() bool) { p.gate = open }

func (p *Port) shut() bool { return p.gate != nil && !p.gate() }

// Kick asks for another turn without waiting, for a stream whose room or
// output changed after it had been looked at.
func (p *Port) Kick() { p.loop.again = true }

// Close ends the connection with this turn: nothing more is received, what
// Output has is sent as far as the connection takes it at once, then Closed
// is called with nil. It may be called from any callback.
func (p *Port) Close() { p.end(nil) }

// watch tells the waiter what the port waits for. It returns true when there
// is something to do without waiting.
func (p *Port) watch() bool {
	p.readable, p.writable = false, false
	if p.broken != nil {
		return true
	}
	read, write := p.link.ready()
	wanted := len(p.stream.Room()) > 0
	p.readable = wanted && read
	p.writable = p.blocked && write
	p.loop.wait.watch(p, wanted, p.blocked)
	return p.readable || p.writable || !p.blocked && p.unsent() && !p.shut()
}

func (p *Port) unsent() bool { return p.link.unsent() || len(p.stream.Output()) > 0 }

// receive reads once, as much as there is room for.
func (p *Port) receive() {
	if p.writable {
		p.blocked = false
	}
	switch {
	case p.ending:
	case p.broken != nil:
		p.drain()
	case p.readable:
		p.readable = false
		p.read()
	}
}

// read reports whether more may be there.
func (p *Port) read() bool {
	room := p.stream.Room()
	if len(room) == 0 {
		return false
	}
	n, err := p.link.read(room)
	if n > 0 {
		p.loop.active = true
		if p.void() {
			p.end(errVoid)
			return false
		}
		if e := p.stream.Received(n); e != nil {
			if errors.Is(e, io.EOF) {
				e = nil
			}
			p.end(e)
			return false
		}
	}
	switch {
	case err == nil:
		return n > 0
	case err == errAgain:
	case errors.Is(err, io.EOF):
		p.end(nil)
	default:
		p.end(fmt.Errorf("receive: %w", err))
	}
	return false
}

// drain reads what the other side had sent before the connection broke: it may
// be a last word that says why.
func (p *Port) drain() {
	for range drainReads {
		if p.distrust || p.ending || !p.read() {
			break
		}
	}
	p.ending = false
	p.end(p.broken)
}

func (p *Port) flush() {
	if p.blocked || p.flushing || p.closed || p.broken != nil {
		return
	}
	p.flushing = true
	for range flushRounds {
		out := p.stream.Output()
		if len(out) == 0 && !p.link.unsent() {
			break
		}
		if p.shut() {
			break
		}
		n, err := p.link.write(out)
		if n > 0 {
			p.loop.active = true
			p.stream.Sent(n)
		}
		if err == errAgain {
			p.blocked = true
			break
		}
		if err != nil {
			p.broken = fmt.Errorf("send: %w", err)
			break
		}
	}
	p.flushing = false
}

// end marks the port for the reaper; the first reason counts.
func (p *Port) end(err error) {
	if p.ending || p.closed {
		return
	}
	p.ending, p.err = true, err
	p.loop.ending, p.loop.again = true, true
}

func (p *Port) finish() {
	p.flush()
	p.closed = true
	p.link.close()
	p.stream.Closed(p.err)
}
