// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"errors"

	"github.com/twinbd/twinbd/internal/block"
)

// Bounds of a session.
const (
	// DefaultRequests is how many requests of a connection are worked on at once.
	DefaultRequests = 1024

	// DefaultBytes bounds the memory of a connection in each direction. It is
	// also the least that works: chunks are powers of two, so the longest WRITE
	// with its header takes one of twice its length, beside the one in which it
	// began to arrive, which may be half as large.
	DefaultBytes = 3 * block.MaxLength

	// maxSkip is the longest payload of an invalid WRITE that is read off, so
	// that the connection survives. Beyond, it ends.
	maxSkip = 64 << 20

	// maxStatus is how many BLOCK_STATUS requests of a connection are worked
	// on at once, and maxExtents how long an answer is per context. A client
	// that wants more asks on from where the answer ended.
	maxStatus  = 4
	maxExtents = 4096
)

// Options are what a session needs besides the connection.
type Options struct {
	Requests int // in flight at once; zero means DefaultRequests
	Bytes    int // memory per direction; raised to DefaultBytes where lower

	// Share bounds the memory of several sessions of one thread together, beyond
	// one message in each direction of each. Nil: each for itself.
	Share *block.Share

	// Wake is called when Sent has put requests in the batch that a bound had
	// held back: the driver must not go to sleep before it has carried them
	// out. With a loop.Port this is its Kick.
	Wake func()

	// Hangup is called at most once, when the connection should be closed: err
	// is nil after the client's disconnect command, once all its requests are
	// answered and sent. It is called from within Received or Sent, so it only
	// takes note. With a loop.Port this is its Close.
	Hangup func(err error)

	// Idle is called once: after Closed, when the last request has come back
	// from the engine and no memory of the session is in use any more.
	Idle func()
}

// Stats are counts since the session began, and what is going on.
type Stats struct {
	Requests     uint64 // decoded and put in the batch
	Refused      uint64 // answered with an error and never put in the batch
	Failed       uint64 // completed by the engine with an error
	BytesRead    uint64 // payload of successful READs
	BytesWritten uint64 // payload of successful WRITEs
	Stalls       uint64 // times that decoding waited for a bound
	InFlight     int    // requests with the engine now
}

// Session is the transmission phase of one connection. It implements
// loop.Stream. All methods belong to the thread that drives the volume, and so
// does the engine's call of Complete.
type Session struct {
	terms      terms
	negotiated *Negotiated
	batch      *block.Batch
	options    Options

	in      *block.Inbox // requests as they arrive
	answers *block.Inbox // room for what READ returns
	out     outbox

	free     *request // not in use
	made     int      // requests that exist
	statuses *statusRoom
	reports  int // statusRooms that exist

	skip        uint32       // bytes of an invalid WRITE's payload still to be read off
	skipped     block.Record // that WRITE
	skipProblem *problem

	stalled  bool // something complete waits in the inbox for a bound
	ended    bool // nothing more is decoded: disconnect command, or protocol broken
	hungUp   bool // Hangup was called
	shutdown bool
	closed   bool
	asked    bool   // something came that was a request
	drained  func() // to be called at the boundary of a request; nil: the session reads on
	resting  bool   // it was called
	stats    Stats
}

// NewSession begins the transmission on a negotiated connection. Decoded
// requests are appended to batch, which all connections of a volume share; the
// engine takes them from there.
func NewSession(n *Negotiated, batch *block.Batch, o Options) *Session {
	if o.Requests <= 0 {
		o.Requests = DefaultRequests
	}
	o.Bytes = max(o.Bytes, DefaultBytes)
	e := n.Export
	s := &Session{
		out:        outbox{limit: (o.Requests + 2) * smallReply},
		negotiated: n,
		batch:      batch,
		options:    o,
		in:         block.NewInbox(block.NewPool(o.Bytes).Join(o.Share)),
		answers:    block.NewInbox(block.NewPool(o.Bytes).Join(o.Share)),
		terms: terms{
			size:       uint64(e.Size),
			minimum:    max(e.Minimum, 1),
			maximum:    e.Maximum,
			readOnly:   e.ReadOnly,
			structured: n.Structured,
			contexts:   n.Contexts,
		},
	}
	if s.terms.maximum == 0 {
		s.terms.maximum = block.MaxLength
	}
	return s
}

// Room is where the next received bytes go; nil while a bound is reached or
// nothing more is wanted.
func (s *Session) Room() []byte {
	if s.stalled || s.ended {
		return nil
	}
	if s.draining() {
		if n := s.missing(); n > 0 && !s.resting {
			room := s.in.Room()
			return room[:min(n, len(room))]
		}
		return nil
	}
	return s.in.Room()
}

// Received decodes what is complete after n more bytes. An error means that
// the client broke the protocol: the connection is to be closed.
func (s *Session) Received(n int) error {
	if s.ended {
		return nil
	}
	s.in.Received(n)
	if err := s.decode(); err != nil {
		s.hungUp = true // the driver hears it from here
		return err
	}
	if !s.asked && s.stats.Requests+s.stats.Refused > 0 {
		s.asked = true
		s.negotiated.asked()
	}
	if s.stalled {
		s.stats.Stalls++
	}
	s.restWhenDrained()
	return nil
}

// Output is what is to be sent, at most 1024 slices at a time. They and the
// slice that holds them stay unchanged until the next call of Output.
func (s *Session) Output() [][]byte { return s.out.pending() }

// Sent says that the first n bytes of Output were sent. Then it decodes what a
// bound had held back: every bound that was reached is left through here, since
// every request that is in flight ends in a reply.
func (s *Session) Sent(n int) {
	s.recycleAll(s.out.sent(n))
	if s.stalled && !s.ended {
		before := s.stats.Requests
		if err := s.decode(); err != nil {
			s.hangUp(err)
		}
		if s.stats.Requests > before && s.options.Wake != nil {
			s.options.Wake()
		}
	}
	s.partWhenDone()
	s.restWhenDrained()
}

// Closed ends the session. Requests that the engine still has keep their
// memory until they complete.
func (s *Session) Closed(error) {
	if s.closed {
		return
	}
	s.closed, s.ended = true, true
	s.recycleAll(s.out.drop())
	s.in.Close()
	s.negotiated.Done()
	s.restWhenDrained()
	s.rest()
}

// Idle reports whether the engine has no request of this session.
func (s *Session) Idle() bool { return s.stats.InFlight == 0 }

// Shutdown makes the session refuse what it has not yet put in the batch, and
// all that follows, with ESHUTDOWN: this node is no longer primary. What the
// engine has goes on.
func (s *Session) Shutdown() { s.shutdown = true }

// Resize tells the session that the export has grown or shrunk to size bytes.
func (s *Session) Resize(size int64) { s.terms.size = uint64(size) }

// Stats returns the counts.
func (s *Session) Stats() Stats { return s.stats }

// partWhenDone hangs up after a disconnect command, once everything is
// answered and sent.
func (s *Session) partWhenDone() {
	if s.ended && !s.closed && s.stats.InFlight == 0 && s.out.empty() {
		s.hangUp(nil)
	}
}

func (s *Session) hangUp(err error) {
	s.ended = true
	if s.hungUp {
		return
	}
	s.hungUp = true
	if s.options.Hangup != nil {
		s.options.Hangup(err)
	}
}

// rest gives up what is left once a closed session is idle.
func (s *Session) rest() {
	if !s.closed || !s.Idle() {
		return
	}
	s.answers.Close()
	if s.options.Idle != nil {
		s.options.Idle()
	}
}

// errMagic ends a connection whose stream of requests cannot be followed.
var errMagic = errors.New("request has a wrong magic")
