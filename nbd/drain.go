// SPDX-License-Identifier: Apache-2.0

package nbd

import "github.com/twinbd/twinbd/internal/block"

// Drain brings the session to rest at the boundary of a request: of what the client
// sends it reads no further than to the end of the request that has begun to arrive,
// and done is called, once, when every request that was read is answered and the
// answer sent, or the connection has ended. What the client has sent beyond is in
// the socket still, for whoever reads it next. Resume goes on instead.
func (s *Session) Drain(done func()) {
	s.drained = done
	s.restWhenDrained()
}

// Resume has a session that was to drain read on. done is not called any more.
func (s *Session) Resume() { s.drained, s.resting = nil, false }

// Resting reports whether the session has drained, and was not resumed.
func (s *Session) Resting() bool { return s.resting }

// draining reports whether the session reads no further than it must.
func (s *Session) draining() bool { return s.drained != nil || s.resting }

// missing is how many bytes there are to the end of what has begun to arrive: a
// header, a WRITE's payload, or one that is read off.
func (s *Session) missing() int {
	if s.skip > 0 {
		return int(s.skip)
	}
	p := s.in.Pending()
	switch n := len(p); {
	case n == 0:
		return 0
	case n < block.RecordHeader:
		return block.RecordHeader - n
	default: // decode leaves nothing else
		rec, _ := block.ParseRecord(p)
		return block.RecordHeader + int(rec.Length) - n
	}
}

// restWhenDrained calls done when that is due.
func (s *Session) restWhenDrained() {
	if s.drained == nil {
		return
	}
	atBoundary := !s.stalled && s.stats.InFlight == 0 && s.out.empty() && (s.ended || s.missing() == 0)
	if s.closed || atBoundary {
		done := s.drained
		s.drained, s.resting = nil, true
		done()
	}
}
