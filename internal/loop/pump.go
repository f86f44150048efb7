// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"net"
	"time"
)

const (
	pumpBuffer  = 64 << 10    // bytes; a pump has two for each direction
	pumpLinger  = time.Second // what write took may take this long to leave after close
	pumpBuffers = 2           // one is filled while the other is emptied
)

// pump is a link over any net.Conn. A goroutine reads into buffers that the
// loop empties, another writes buffers that the loop filled; each buffer has
// one owner at a time and travels through channels that can hold them all, so
// that the loop never waits.
type pump struct {
	conn net.Conn
	done chan struct{} // closed by close

	received chan received // from the reader
	free     chan []byte   // back to it
	readEnd  chan struct{} // closed when the reader has ended
	current  received      // what the loop is reading from
	rest     []byte        // of current

	filled chan []byte // to the writer
	empty  chan []byte // back from it
	failed chan error  // why the writer ended
	err    error       // the same, once seen
}

type received struct {
	buffer []byte // what was read
	err    error  // after it
}

func (l *Loop) newPump(conn net.Conn) *pump {
	p := &pump{
		conn:     conn,
		done:     make(chan struct{}),
		received: make(chan received, pumpBuffers),
		free:     make(chan []byte, pumpBuffers),
		readEnd:  make(chan struct{}),
		filled:   make(chan []byte, pumpBuffers),
		empty:    make(chan []byte, pumpBuffers),
		failed:   make(chan error, 1),
	}
	for range pumpBuffers {
		p.free <- make([]byte, pumpBuffer)
		p.empty <- make([]byte, pumpBuffer)
	}
	l.pumps.Go(func() { p.readAll(l.wake) })
	l.pumps.Go(func() { p.writeAll(l.wake) })
	return p
}

func (p *pump) readAll(wake func()) {
	defer close(p.readEnd)
	for {
		select {
		case b := <-p.free:
			n, err := p.conn.Read(b[:pumpBuffer])
			p.received <- received{b[:n], err}
			wake()
			if err != nil {
				return
			}
		case <-p.done:
			return
		}
	}
}

// writeAll writes until filled is closed and drained, or a write fails, and
// then closes the connection, which ends readAll.
func (p *pump) writeAll(wake func()) {
	defer p.conn.Close()
	for b := range p.filled {
		if _, err := p.conn.Write(b); err != nil {
			p.awaitReader()
			p.failed <- err
			wake()
			<-p.done
			return
		}
		p.empty <- b
		wake()
	}
}

// awaitReader gives the reader a moment to find what the other side had sent
// before it went: the port reads that before it ends.
func (p *pump) awaitReader() {
	p.conn.SetReadDeadline(time.Now().Add(pumpLinger)) // an error only means that the timer ends it
	timer := time.NewTimer(pumpLinger)
	defer timer.Stop()
	select {
	case <-p.readEnd:
	case <-timer.C:
	case <-p.done:
	}
}

func (p *pump) ready() (read, write bool) {
	read = len(p.rest) > 0 || p.current.err != nil || len(p.received) > 0
	write = len(p.empty) > 0 || len(p.failed) > 0
	return read, write
}

func (p *pump) descriptor() int { return -1 }
func (p *pump) unsent() bool    { return false }

func (p *pump) read(b []byte) (int, error) {
	n := 0
	for n < len(b) {
		if len(p.rest) > 0 {
			m := copy(b[n:], p.rest)
			p.rest = p.rest[m:]
			n += m
			continue
		}
		if p.current.err != nil {
			return n, p.current.err
		}
		if p.current.buffer != nil {
			p.free <- p.current.buffer
			p.current.buffer = nil
		}
		select {
		case p.current = <-p.received:
			p.rest = p.current.buffer
		default:
			return n, errAgain
		}
	}
	return n, nil
}

func (p *pump) write(buffers [][]byte) (int, error) {
	if p.err == nil && len(p.failed) > 0 {
		p.err = <-p.failed
	}
	if p.err != nil {
		return 0, p.err
	}
	var out []byte // being filled
	n := 0
	for _, b := range buffers {
		for len(b) > 0 {
			if out == nil {
				select {
				case out = <-p.empty:
					out = out[:0]
				default:
					return n, errAgain
				}
			}
			m := min(len(b), pumpBuffer-len(out))
			out = append(out, b[:m]...)
			b = b[m:]
			n += m
			if len(out) == pumpBuffer {
				p.filled <- out
				out = nil
			}
		}
	}
	if out != nil {
		p.filled <- out
	}
	return n, nil
}

// close lets the writer finish what write took, for a moment: a last word to
// the other side is worth that.
func (p *pump) close() {
	close(p.filled)
	close(p.done)
	p.conn.SetWriteDeadline(time.Now().Add(pumpLinger)) // an error only means that the close below does it
	time.AfterFunc(pumpLinger, func() { p.conn.Close() })
}
