// SPDX-License-Identifier: Apache-2.0

package block

import "math/bits"

// ChunkSize is the usual size in bytes of the pieces in which an Inbox
// receives, and so the most that one read of a socket brings.
const ChunkSize = 1 << 20

// smallRoom is the room in bytes below which an inbox rather moves to another
// chunk than read in small pieces.
const smallRoom = 64 << 10

// Pool hands out chunks of memory up to a limit, and keeps those that come
// back. A Pool, its chunks and its inboxes belong to one thread.
type Pool struct {
	limit int // bytes that may be handed out at once
	used  int
	share *Share     // with other pools; nil without
	free  [64]*chunk // by power of two of the size, linked through next
	kept  int        // bytes in free
}

// NewPool returns a pool that hands out at most limit bytes at a time, but
// always at least one chunk of any size. Each inbox keeps a chunk even while it
// is quiet: a limit for n inboxes is n × ChunkSize and what they may hold.
func NewPool(limit int) *Pool { return &Pool{limit: limit} }

// Share bounds what several pools of one thread hand out together. A pool that
// has handed out nothing gets one chunk of any size all the same, so that none
// waits for another: it is the second chunk that has to wait.
type Share struct{ limit, used int }

// NewShare returns a share of limit bytes.
func NewShare(limit int) *Share { return &Share{limit: limit} }

// Used is the number of bytes that all pools of the share have handed out.
func (s *Share) Used() int { return s.used }

// Join makes the pool one of a share. It is called before the pool is used.
func (p *Pool) Join(s *Share) *Pool {
	p.share = s
	return p
}

// scarce reports whether size more bytes, in exchange for back, are beyond a bound.
func (p *Pool) scarce(size, back int) bool {
	more := size - back
	return p.used+more > p.limit || p.share != nil && p.share.used+more > p.share.limit
}

// count notes that n more bytes are handed out.
func (p *Pool) count(n int) {
	p.used += n
	if p.share != nil {
		p.share.used += n
	}
}

// Used is the number of bytes handed out.
func (p *Pool) Used() int { return p.used }

// chunk is a piece of memory with several users: the inbox that fills it and
// every message in it that somebody still holds.
type chunk struct {
	pool *Pool
	next *chunk
	buf  []byte
	refs int
}

// get hands out a chunk of at least size bytes, or nil at the limit. The caller
// gives back bytes at once in exchange: they do not count.
func (p *Pool) get(size, back int) *chunk {
	class := bits.Len(uint(max(size, ChunkSize) - 1))
	if size = roundSize(size, class); p.used > back && p.scarce(size, back) {
		return nil
	}
	c := p.free[class]
	if c != nil {
		p.free[class], c.next = c.next, nil
		p.kept -= size
	} else {
		c = &chunk{pool: p, buf: make([]byte, size)}
	}
	p.count(size)
	c.refs = 1
	return c
}

// maxKept is the size in bytes of the largest chunks that are kept for reuse, and
// keptInAll what a pool keeps at most: a burst does not cost memory for as long as
// its connection lasts.
const (
	maxKept   = 4 * ChunkSize
	keptInAll = 16 * ChunkSize
)

// roundSize is the size of the chunk for a message: a power of two where the
// chunk is kept, so that it serves others, else little more than is needed.
func roundSize(size, class int) int {
	if size <= maxKept {
		return 1 << class
	}
	return (size + smallRoom - 1) &^ (smallRoom - 1)
}

// put takes a chunk back. Large chunks are for the garbage collector, so that
// one burst of large requests does not cost memory for ever.
func (p *Pool) put(c *chunk) {
	size := len(c.buf)
	p.count(-size)
	if size > maxKept || p.kept+size > min(p.limit, keptInAll) {
		return
	}
	class := bits.Len(uint(size - 1))
	c.next, p.free[class] = p.free[class], c
	p.kept += size
}

func (c *chunk) release() {
	c.refs--
	switch {
	case c.refs == 0:
		c.pool.put(c)
	case c.refs < 0:
		panic("block: chunk released twice")
	}
}

// Hold keeps a message's bytes in place. The zero Hold holds nothing.
type Hold struct{ c *chunk }

// Release gives the bytes up. It is called once, on the pool's thread.
func (h Hold) Release() {
	if h.c != nil {
		h.c.release()
	}
}

// Again returns one more hold on the same bytes, to be released for itself.
func (h Hold) Again() Hold {
	if h.c != nil {
		h.c.refs++
	}
	return h
}

// Inbox receives a stream in large pieces and leaves each message where it
// arrived, contiguous, until its hold is released. An Inbox is used either to
// receive (Room, Received, Pending, Fit, Take) or to Alloc, not for both.
type Inbox struct {
	pool *Pool
	cur  *chunk
	r, w int // cur.buf[r:w] is received and not taken
	want int // the message at r ends here, as far as Fit was told: room is there
}

// NewInbox returns an inbox on the pool.
func NewInbox(pool *Pool) *Inbox { return &Inbox{pool: pool} }

// Room returns where the next bytes of the stream go: never empty, or nil when
// the pool's limit is reached and the caller must release something first.
func (in *Inbox) Room() []byte {
	in.rewind()
	if in.cur == nil || in.w >= in.want && len(in.cur.buf)-in.w < smallRoom {
		if !in.Fit(in.w-in.r+smallRoom) && (in.cur == nil || in.w == len(in.cur.buf)) {
			return nil
		}
	}
	return in.cur.buf[in.w:]
}

// Received says that n bytes were put at the start of Room.
func (in *Inbox) Received(n int) { in.w += n }

// Pending is what was received and not taken. It stays valid until the next
// call of Room or Fit.
func (in *Inbox) Pending() []byte {
	if in.cur == nil {
		return nil
	}
	return in.cur.buf[in.r:in.w:in.w]
}

// Fit makes sure that a message of n bytes that begins at Pending can be
// received contiguously, moving its beginning to another chunk where it must.
// It returns false, with nothing changed, when the pool's limit is reached.
func (in *Inbox) Fit(n int) bool {
	switch {
	case in.cur != nil && len(in.cur.buf)-in.r >= n:
	case in.cur != nil && in.cur.refs == 1 && len(in.cur.buf) >= n:
		in.w = copy(in.cur.buf, in.cur.buf[in.r:in.w])
		in.r = 0
	default:
		if !in.replace(n) {
			return false
		}
	}
	in.want = in.r + n
	return true
}

// Take consumes the first n bytes of Pending and holds them in place.
func (in *Inbox) Take(n int) ([]byte, Hold) {
	b := in.Pending()[:n:n]
	in.r += n
	in.cur.refs++
	return b, Hold{in.cur}
}

// Skip consumes the first n bytes of Pending.
func (in *Inbox) Skip(n int) {
	_ = in.Pending()[:n:n]
	in.r += n
}

// Alloc returns n bytes of memory with a hold, packed with what was allocated
// before, or false when the pool's limit is reached. Content is undefined.
//
// It is for answers that are built in place: allocations that follow each other
// are adjacent in memory as long as a chunk lasts.
func (in *Inbox) Alloc(n int) ([]byte, Hold, bool) {
	if in.cur != nil && in.cur.refs == 1 && in.r == in.w {
		in.r, in.w = 0, 0
	}
	if (in.cur == nil || len(in.cur.buf)-in.w < n) && !in.replace(n) {
		return nil, Hold{}, false
	}
	b := in.cur.buf[in.w : in.w+n : in.w+n]
	in.w += n
	in.r = in.w
	in.cur.refs++
	return b, Hold{in.cur}, true
}

// Close gives the inbox's own chunk up; holds stay valid.
func (in *Inbox) Close() {
	if in.cur != nil {
		in.cur.release()
		in.cur, in.r, in.w, in.want = nil, 0, 0, 0
	}
}

// rewind starts the chunk anew when nobody else uses it and nothing is
// pending, so that a quiet connection stays in one place in the cache.
func (in *Inbox) rewind() {
	if in.cur != nil && in.cur.refs == 1 && in.r == in.w {
		in.r, in.w, in.want = 0, 0, 0
	}
}

// replace moves what is pending to a chunk with room for n bytes from there on.
// A chunk that nobody else uses goes back in exchange, so that an inbox that has
// a pool to itself is never stuck behind its own chunk.
func (in *Inbox) replace(n int) bool {
	back := 0
	if in.cur != nil && in.cur.refs == 1 {
		back = len(in.cur.buf)
	}
	next := in.pool.get(n, back)
	if next == nil {
		return false
	}
	pending := copy(next.buf, in.Pending())
	if in.cur != nil {
		in.cur.release()
	}
	in.cur, in.r, in.w, in.want = next, 0, pending, 0
	return true
}
