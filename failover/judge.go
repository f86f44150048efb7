// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"fmt"
	"time"
)

// judge says why q is not granted; without a reason it is.
func (s *Seat) judge(now Stamp, q *Request) Answer {
	if !q.Seen.recent(now, q.Timeout) && !mutated("an old request is void") {
		return Answer{Void: true, Reason: fmt.Sprintf("%s names no answer that this run of the witness has given within the last %v, "+
			"so the request may be of any age: it is to ask anew; the witness has %v", q.From, q.Timeout, s.Record)}
	}
	if reason := s.wanting(q.Service); reason != "" && !q.Operator {
		return Answer{Reason: reason}
	}
	if reason := wrongEpoch(&s.Record, q); reason != "" {
		return Answer{Reason: reason}
	}
	switch {
	case q.Operator:
		return Answer{Reason: s.wrongForOperator(q)}
	case q.Claim != 0:
		return Answer{Reason: wrongForClaim(&s.Record, q)}
	case q.From == s.Record.Holder:
		return Answer{} // it may go alone, return to pair, or hand over to its peer
	}
	if reason := wrongForOther(&s.Record, q); reason != "" {
		return Answer{Reason: reason}
	}
	return s.tooEarly(now, q)
}

// wrongEpoch compares: whoever asks knows the record as it is, and leaves it
// higher.
//
// A request that names a higher epoch does not show that records were lost: a
// secondary is told of the next epoch before the record has it (rule 16).
func wrongEpoch(r *Record, q *Request) string {
	switch {
	case q.Replaces != r.Epoch && !mutated("a change names the epoch that it replaces"):
		return fmt.Sprintf("%s names epoch %d, but the service is at %v", q.From, q.Replaces, r)
	case q.RaiseTo != 0 && q.RaiseTo <= r.Epoch && !mutated("a change raises the epoch"):
		return fmt.Sprintf("nobody lowers an epoch: %s would set %d, and the service is at %v", q.From, q.RaiseTo, r)
	case q.epoch() > MaxEpoch:
		return fmt.Sprintf("there is no epoch above %d, and the service is at %v", uint64(MaxEpoch), r)
	case q.Token == r.Token:
		return fmt.Sprintf("the token of the last change is used for another request, and the service is at %v", r)
	}
	return ""
}

// wrongForOperator holds the operator's word to what it means: "this node's
// data, whatever the other has". Whatever the other knows is passed.
func (s *Seat) wrongForOperator(q *Request) string {
	newest, _ := s.newest()
	switch {
	case q.Holder != q.From:
		return fmt.Sprintf("an operator chooses the node that asks, which is %s and not %s; the witness has %v",
			q.From, q.Holder, s.Record)
	case q.Mode != Alone:
		return fmt.Sprintf("an operator's choice is alone until the peer is in step; the witness has %v", s.Record)
	case q.epoch() <= newest.Epoch:
		return fmt.Sprintf("the witness has lost records: it has %v, and a node knows epoch %d; "+
			"%s would set %d, and an operator raises past what either node knows", s.Record, newest.Epoch, q.From, q.epoch())
	}
	return ""
}

// wrongForClaim: the promise of the other node is worth more than a lower
// record, whoever that names (rule 19). It becomes alone, for the other may lack
// writes, and a claim that left the pair would let it take over (G7).
func wrongForClaim(r *Record, q *Request) string {
	if q.Claim <= r.Epoch {
		return fmt.Sprintf("the promise %d that %s claims by has been passed: the service is at %v", q.Claim, q.From, r)
	}
	return ""
}

// wrongForOther holds who is not the holder to the one thing that it may do:
// take over from a pair. It becomes alone in the same step, for the former
// holder may show what was never acknowledged (F16).
func wrongForOther(r *Record, q *Request) string {
	switch {
	case q.Holder != q.From:
		return fmt.Sprintf("only the holder hands over, and the service is at %v", r)
	case r.Mode == Alone && !mutated("nobody takes over from alone"):
		return fmt.Sprintf("%s may lack writes: the service is at %v", q.From, r)
	case q.Mode != Alone:
		return fmt.Sprintf("who takes over is alone first, and the service is at %v", r)
	}
	return ""
}

// tooEarly: the holder serves for as long as a lease lasts after it was last
// heard, whichever of the two it is that believes in the longer one.
func (s *Seat) tooEarly(now Stamp, q *Request) Answer {
	timeout := max(s.Record.Timeout, q.Timeout)
	left := s.Renewed + timeout + Margin(timeout) - now.At
	if left <= 0 || mutated("a holder that renewed is not taken over") {
		return Answer{}
	}
	return Answer{Wait: left, Reason: fmt.Sprintf("the holder may still serve for %v, and the service is at %v",
		left.Round(time.Millisecond), s.Record)}
}
