// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"fmt"

	"github.com/twinbd/twinbd/internal/block"
)

// request is a block.Request with what the session needs to answer it. It is
// its own Owner, so that a completion finds its way without a search.
type request struct {
	block.Request
	session *Session
	next    *request // in the free list, or in the list of what was sent

	input  block.Hold // Record
	answer []byte     // READ: the reply, whose tail is Data
	output block.Hold // answer
	status *statusRoom
}

// Complete takes the request back from the engine.
func (r *request) Complete(*block.Request) { r.session.complete(r) }

// decode takes every complete request off the inbox: the valid ones into the
// batch, the others to an error reply. It stops at a bound, and then says so
// in stalled. An error ends the connection.
func (s *Session) decode() error {
	s.stalled = false
	for !s.ended {
		if s.skip > 0 && !s.skipOn() {
			return nil
		}
		p := s.in.Pending()
		if len(p) < block.RecordHeader {
			return nil
		}
		rec, ok := block.ParseRecord(p)
		if !ok {
			return s.broken(errMagic)
		}
		if rec.Op == commandDisconnect {
			s.in.Skip(block.RecordHeader)
			s.ended = true
			s.partWhenDone()
			return nil
		}
		if !s.out.roomy(s.stats.InFlight) {
			return s.stall()
		}
		problem := s.terms.validate(rec)
		if problem == nil && s.shutdown {
			problem = problemShutdown
		}
		switch {
		case problem != nil:
			if err := s.reject(rec, problem); err != nil {
				return err
			}
		case rec.Op == block.Write && !s.in.Fit(block.RecordHeader+int(rec.Length)):
			return s.stall()
		case rec.Op == block.Write && len(s.in.Pending()) < block.RecordHeader+int(rec.Length):
			return nil
		case !s.admit(rec):
			return s.stall()
		}
	}
	return nil
}

func (s *Session) stall() error {
	s.stalled = true
	return nil
}

func (s *Session) broken(err error) error {
	s.ended = true
	return err
}

// reject answers an invalid request. The payload of an invalid WRITE is read
// off first, without keeping it: its reply goes out when it is over.
func (s *Session) reject(rec block.Record, p *problem) error {
	if rec.Op == block.Write && rec.Length > maxSkip {
		return s.broken(fmt.Errorf("write of %d bytes: more than %d are not even read off", rec.Length, maxSkip))
	}
	s.in.Skip(block.RecordHeader)
	if rec.Op == block.Write && rec.Length > 0 {
		s.skip, s.skipped, s.skipProblem = rec.Length, rec, p
		return nil
	}
	s.refuse(rec, p)
	return nil
}

// skipOn reads off a payload, and reports whether it is over.
func (s *Session) skipOn() bool {
	n := min(uint32(len(s.in.Pending())), s.skip)
	if n == 0 {
		return false
	}
	s.in.Skip(int(n))
	if s.skip -= n; s.skip > 0 {
		return false
	}
	s.refuse(s.skipped, s.skipProblem)
	return true
}

func (s *Session) refuse(rec block.Record, p *problem) {
	s.stats.Refused++
	s.putError(rec.Cookie, p)
}

// admit puts the valid request at the head of the inbox in the batch, or
// reports that a bound is reached; then nothing has changed.
func (s *Session) admit(rec block.Record) bool {
	r := s.take()
	if r == nil {
		return false
	}
	r.Op, r.Flags, r.Cookie = rec.Op, rec.Flags, rec.Cookie
	r.Offset, r.Length = int64(rec.Offset), int64(rec.Length)
	if !rec.Op.Changes() {
		r.Flags &^= block.FUA
	}
	switch rec.Op {
	case block.Write:
		r.Record, r.input = s.in.Take(block.RecordHeader + int(rec.Length))
		r.Data = r.Record[block.RecordHeader:]
	case block.Trim, block.WriteZeroes:
		r.Record, r.input = s.in.Take(block.RecordHeader)
	case block.Read:
		if !s.makeAnswer(r) {
			s.recycle(r)
			return false
		}
		s.in.Skip(block.RecordHeader)
	case block.BlockStatus:
		if !s.takeStatus(r) {
			s.recycle(r)
			return false
		}
		s.in.Skip(block.RecordHeader)
	default:
		s.in.Skip(block.RecordHeader)
	}
	s.stats.Requests++
	s.stats.InFlight++
	s.batch.Requests = append(s.batch.Requests, &r.Request)
	return true
}

// makeAnswer finds memory for a READ's reply: its header, then the data.
func (s *Session) makeAnswer(r *request) bool {
	header := simpleHeader
	if s.terms.structured {
		header = dataHeader
	}
	n := header + int(r.Length)
	b, hold, ok := s.answers.Alloc(n)
	if !ok {
		s.answers.Close() // its own chunk, perhaps the only one in use, may be too small
		if b, hold, ok = s.answers.Alloc(n); !ok {
			return false
		}
	}
	r.answer, r.output, r.Data = b, hold, b[header:]
	return true
}

// take returns a request that is not in use, or nil at the bound.
func (s *Session) take() *request {
	r := s.free
	if r != nil {
		s.free, r.next = r.next, nil
		return r
	}
	if s.made == s.options.Requests {
		return nil
	}
	s.made++
	r = &request{session: s}
	r.Owner = r
	return r
}

// recycle takes a request back with everything that it holds.
func (s *Session) recycle(r *request) {
	r.input.Release()
	r.output.Release()
	if r.status != nil {
		r.status.next, s.statuses = s.statuses, r.status
	}
	*r = request{session: s, next: s.free, Request: block.Request{Owner: r}}
	s.free = r
}

// recycleAll takes back a list of requests.
func (s *Session) recycleAll(r *request) {
	for r != nil {
		next := r.next
		s.recycle(r)
		r = next
	}
}
