// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"hash/crc32"
	"time"

	"github.com/twinbd/twinbd/internal/block"
)

// Link is one connection to the peer as bytes: it cuts what arrives into
// frames for the engine, and keeps what the engine has to say until it is
// sent. It matches loop.Stream. A Link is used for one connection only.
type Link struct {
	engine *Engine
	bulk   bool

	inbox *block.Inbox
	pools [2]*block.Pool // what inbox and scratch draw from

	// out is what is to be sent, in order. Payloads alias requests that stay
	// in flight until the peer has answered, or memory that hold keeps.
	out     [][]byte
	holds   []block.Hold // one for each of out, may be empty
	sent    int          // entries of out that are gone
	offered int          // entries of out that the driver was shown
	taken   int64        // bytes that are gone, ever
	pace    pace
	scratch *block.Inbox // headers and small payloads

	closed  bool
	swamped bool  // what waits to be sent is beyond all bounds
	err     error // why Received gave up

	// Dropped is called once, when the engine is done with the connection: the
	// driver closes it. It is set before the link is used, or nil.
	Dropped func()
}

// linkMemory bounds what one link holds for received frames: the longest
// frame, and what workers still write.
const linkMemory = 2*(maxPayload+block.ChunkSize) + 32<<20

func newLink(e *Engine, bulk bool) *Link {
	l := &Link{engine: e, bulk: bulk, pools: [2]*block.Pool{block.NewPool(linkMemory), block.NewPool(linkMemory)}}
	l.inbox, l.scratch = block.NewInbox(l.pools[0]), block.NewInbox(l.pools[1])
	return l
}

// Room is where the next received bytes go; nil while the disk is behind, and
// while what the last session left under way has not ended.
func (l *Link) Room() []byte {
	if l.closed || l.engine.session.state == Draining {
		return nil
	}
	return l.inbox.Room()
}

// Received decodes what is complete and gives it to the engine. An error says
// why the connection cannot go on.
func (l *Link) Received(n int) error {
	l.inbox.Received(n)
	err := l.decode()
	l.engine.settle()
	return err
}

// decode gives the engine every frame that is complete.
func (l *Link) decode() error {
	for !l.closed {
		b := l.inbox.Pending()
		if len(b) < frameHeader {
			break
		}
		f, length, sum, err := parseFrameHeader(b)
		if err != nil {
			return l.fail(err)
		}
		if len(b) < frameHeader+length {
			l.inbox.Fit(frameHeader + length)
			break
		}
		if crc32.Checksum(b[frameHeader:frameHeader+length], block.Castagnoli) != sum {
			return l.fail(errPayload)
		}
		taken, hold := l.inbox.Take(frameHeader + length)
		f.Payload, f.hold = taken[frameHeader:], hold
		err = l.engine.frame(l, &f)
		hold.Release() // whoever needs the payload longer has kept it
		if err != nil {
			return l.fail(err)
		}
	}
	if l.swamped && !l.closed {
		return l.fail(errSwamped)
	}
	return l.err
}

func (l *Link) fail(err error) error {
	l.err = err
	l.engine.lostLink(l, err.Error())
	return err
}

// Output is what is to be sent.
func (l *Link) Output() [][]byte {
	if !l.bulk && !l.closed {
		l.engine.follower.compose()
	}
	l.offered = len(l.out)
	return l.out[l.sent:]
}

// slow reports whether the connection is, so that what it is spared pays. It is
// behind while it has left something of what it was offered.
func (l *Link) slow(now time.Duration) bool {
	return l.pace.slow(now, l.sent < l.offered, l.taken)
}

// Sent says that n bytes of Output are gone.
func (l *Link) Sent(n int) {
	l.taken += int64(n)
	for n > 0 {
		b := l.out[l.sent]
		if n < len(b) {
			l.out[l.sent] = b[n:]
			return
		}
		n -= len(b)
		l.holds[l.sent].Release()
		l.out[l.sent], l.holds[l.sent] = nil, block.Hold{}
		l.sent++
	}
	if l.sent == len(l.out) {
		l.out, l.holds, l.sent, l.offered = l.out[:0], l.holds[:0], 0, 0
		if !l.bulk && l.engine.session.over != "" {
			l.engine.hangUp()
			l.engine.settle()
		}
	}
}

// Closed says that the connection has ended.
func (l *Link) Closed(err error) {
	if l.closed {
		return
	}
	reason := "connection closed by the peer"
	if err != nil {
		reason = err.Error()
	}
	l.engine.lostLink(l, reason)
	l.engine.settle()
}

// drop forgets everything unsent, so that no payload is read after its request
// has been answered without the peer.
func (l *Link) drop() {
	if l.closed {
		return
	}
	l.closed = true
	if l.Dropped != nil {
		defer l.Dropped()
	}
	for i := l.sent; i < len(l.out); i++ {
		l.holds[i].Release()
	}
	l.out, l.holds, l.sent, l.offered = nil, nil, 0, 0
	l.inbox.Close()
	l.scratch.Close()
}

// push appends a frame whose payload is one slice that stays valid until the
// peer has answered; nil for none.
func (l *Link) push(f *Frame, payload []byte) {
	if l.closed {
		return
	}
	head := l.room(frameHeader)
	sum := uint32(0)
	if len(payload) > 0 {
		sum = crc32.Checksum(payload, block.Castagnoli)
	}
	putFrameHeader(head, f, len(payload), sum)
	if len(payload) > 0 {
		l.append(payload, block.Hold{})
	}
}

// pushCopy is push of a payload that the caller goes on to use.
func (l *Link) pushCopy(f *Frame, payload []byte) {
	if l.closed {
		return
	}
	b := l.room(frameHeader + len(payload))
	copy(b[frameHeader:], payload)
	sealFrame(b, f)
}

// maxQueued bounds the pieces that wait to be sent: more than all that a full
// window, its answers and a resync can have there.
const maxQueued = 64 << 10

// room appends n bytes of the link's own memory to what is sent.
func (l *Link) room(n int) []byte {
	b, hold, ok := l.scratch.Alloc(n)
	if len(l.out)-l.sent >= maxQueued {
		l.swamped = true // small answers, of which very many fit
	}
	if !ok {
		// The peer asks and reads no answers: more than the protocol lets
		// anyone cause. Received ends the session.
		b, hold, l.swamped = make([]byte, n), block.Hold{}, true
	}
	l.append(b, hold)
	return b
}

func (l *Link) append(b []byte, hold block.Hold) {
	if l.sent > 0 && len(l.out) == cap(l.out) { // rather move up than grow
		l.out = l.out[:copy(l.out, l.out[l.sent:])]
		l.holds = l.holds[:copy(l.holds, l.holds[l.sent:])]
		l.sent, l.offered = 0, max(l.offered-l.sent, 0)
	}
	l.out = append(l.out, b)
	l.holds = append(l.holds, hold)
}
