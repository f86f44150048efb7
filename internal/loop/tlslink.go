// SPDX-License-Identifier: Apache-2.0

package loop

import "crypto/tls"

const (
	recordSize  = 16 << 10  // bytes of plaintext in a full TLS record
	cipherBatch = 128 << 10 // bytes of ciphertext that are collected for one write
)

// tlsLink is a tls.Conn within the turn: its Shim reads the raw socket without
// waiting and collects ciphertext, which leaves in large writes.
type tlsLink struct {
	conn  *tls.Conn
	shim  *Shim
	more  bool // the tls.Conn may hold bytes that no poll reports
	plain []byte
}

func newTLSLink(conn *tls.Conn, s *Shim, raw link) *tlsLink {
	s.raw = raw
	// The handshake may have read beyond its own end.
	return &tlsLink{conn: conn, shim: s, more: true, plain: make([]byte, 0, recordSize)}
}

func (t *tlsLink) ready() (read, write bool) { return t.more, false }
func (t *tlsLink) descriptor() int           { return t.shim.raw.descriptor() }
func (t *tlsLink) unsent() bool              { return t.shim.unsent() > 0 }

func (t *tlsLink) read(p []byte) (int, error) {
	t.shim.drained = false
	n := 0
	for n < len(p) {
		m, err := t.conn.Read(p[n:])
		n += m
		if err != nil {
			t.more = false
			return n, err
		}
	}
	t.more = true
	return n, nil
}

func (t *tlsLink) write(buffers [][]byte) (int, error) {
	total := 0
	var at place
	for {
		if err := t.shim.flush(); err != nil {
			return total, err
		}
		if at.index == len(buffers) {
			return total, nil
		}
		n, next, err := t.seal(buffers, at)
		total += n
		if err != nil {
			return total, err
		}
		at = next
	}
}

// seal encrypts from at on until a batch of ciphertext is collected, and says
// how many bytes that were and where it stopped.
func (t *tlsLink) seal(buffers [][]byte, at place) (int, place, error) {
	n := 0
	for at.index < len(buffers) && t.shim.unsent() < cipherBatch {
		// Full records come straight from their buffer, the rest is gathered.
		piece := buffers[at.index][at.offset:]
		piece = piece[:min(len(piece)/recordSize*recordSize, cipherBatch)]
		next := at.advance(buffers, len(piece))
		if len(piece) == 0 {
			piece, next = t.gather(buffers, at)
		}
		if _, err := t.conn.Write(piece); err != nil {
			return n, at, err
		}
		n += len(piece)
		at = next
	}
	return n, at, nil
}

// gather copies several small pieces into one record.
func (t *tlsLink) gather(buffers [][]byte, at place) ([]byte, place) {
	plain := t.plain[:0]
	for at.index < len(buffers) && len(plain) < recordSize {
		b := buffers[at.index][at.offset:]
		m := min(len(b), recordSize-len(plain))
		plain = append(plain, b[:m]...)
		at = at.advance(buffers, m)
	}
	return plain, at
}

// place is a position in a list of buffers.
type place struct{ index, offset int }

// advance moves n bytes within the present buffer.
func (p place) advance(buffers [][]byte, n int) place {
	p.offset += n
	if p.offset == len(buffers[p.index]) {
		return place{index: p.index + 1}
	}
	return p
}

// close says goodbye (close_notify) as far as the socket takes it at once.
func (t *tlsLink) close() {
	_ = t.conn.CloseWrite()
	_ = t.shim.flush()
	t.shim.raw.close()
}
