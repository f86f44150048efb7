// SPDX-License-Identifier: Apache-2.0

package nbd

// The outbox is the queue of what is to be sent. Replies with a payload lie in
// memory of their own; the small ones, 16 bytes each most of the time, are
// packed into one ring in the order in which they are sent, so that a batch of
// them leaves as one piece. The ring cannot overflow: whoever decodes a request
// first asks whether the largest small reply to it and to all that are in
// flight would still fit.

const (
	smallReply = 96   // bytes, the longest reply without payload
	maxPieces  = 1024 // that Output returns at once: what one system call takes
)

// outbox is used by one thread.
type outbox struct {
	pieces []piece
	views  [][]byte // of what Output returned last
	first  int      // pieces before it are sent
	shown  int      // pieces before it were returned by Output and are not changed any more

	limit int // bytes of the ring, which is made when it is first needed
	ring  []byte
	start int // of the oldest byte in the ring that is not sent
	used  int // bytes in the ring from start, the waste at the wrap included
	wrap  int // where the ring's content jumps to its beginning
}

// piece is a run of bytes to be sent, and who is done with it then.
type piece struct {
	b     []byte
	owner *request // nil in the middle of a reply, and for small replies
	small bool     // in the ring
}

// roomy reports whether the ring has room for one more small reply besides
// those of the requests in flight and the waste at the wrap.
func (o *outbox) roomy(inFlight int) bool {
	return o.used+(inFlight+2)*smallReply <= o.limit
}

// empty reports whether everything is sent.
func (o *outbox) empty() bool { return o.first == len(o.pieces) }

// put queues a run of bytes. owner, if any, comes back from sent.
func (o *outbox) put(b []byte, owner *request) {
	o.pieces = append(o.pieces, piece{b: b, owner: owner})
}

// small queues n bytes of the ring and returns them to be filled in now.
func (o *outbox) small(n int) []byte {
	if o.ring == nil {
		o.ring = make([]byte, o.limit)
	}
	if o.used == 0 {
		o.start, o.wrap = 0, len(o.ring)
	}
	end := o.start + o.used
	if end >= len(o.ring) {
		end -= len(o.ring)
	}
	if end+n > len(o.ring) {
		o.used += len(o.ring) - end
		o.wrap, end = end, 0
	}
	o.used += n
	last := len(o.pieces) - 1
	if last >= max(o.first, o.shown) && o.pieces[last].small && end > 0 {
		p := &o.pieces[last]
		p.b = p.b[:len(p.b)+n]
		return p.b[len(p.b)-n:]
	}
	b := o.ring[end : end+n]
	o.pieces = append(o.pieces, piece{b: b, small: true})
	return b
}

// pending returns what is to be sent next.
func (o *outbox) pending() [][]byte {
	switch {
	case o.empty():
		o.pieces, o.first = o.pieces[:0], 0
	case o.first > len(o.pieces)/2:
		n := copy(o.pieces, o.pieces[o.first:])
		clear(o.pieces[n:])
		o.pieces, o.first = o.pieces[:n], 0
	}
	o.shown = min(len(o.pieces), o.first+maxPieces)
	o.views = o.views[:0]
	for i := range o.pieces[o.first:o.shown] {
		o.views = append(o.views, o.pieces[o.first+i].b)
	}
	return o.views
}

// sent takes n bytes off the front and returns the requests whose replies are
// thereby sent whole, linked by next.
func (o *outbox) sent(n int) (done *request) {
	for n > 0 {
		p := &o.pieces[o.first]
		k := min(n, len(p.b))
		n -= k
		p.b = p.b[k:]
		if p.small {
			o.reclaim(k)
		}
		if len(p.b) > 0 {
			break
		}
		if r := p.owner; r != nil {
			r.next, done = done, r
		}
		*p = piece{}
		o.first++
	}
	return done
}

// drop forgets everything and returns the requests that were waiting.
func (o *outbox) drop() (done *request) {
	for ; o.first < len(o.pieces); o.first++ {
		if r := o.pieces[o.first].owner; r != nil {
			r.next, done = done, r
		}
	}
	*o = outbox{limit: o.limit}
	return done
}

// reclaim gives n bytes back to the ring.
func (o *outbox) reclaim(n int) {
	o.start += n
	o.used -= n
	if o.start == o.wrap && o.wrap < len(o.ring) {
		o.used -= len(o.ring) - o.wrap
		o.start, o.wrap = 0, len(o.ring)
	}
	if o.start == len(o.ring) {
		o.start = 0
	}
}
