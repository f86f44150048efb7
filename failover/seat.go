// SPDX-License-Identifier: Apache-2.0

package failover

import "time"

// Seat is all that the witness goes by for one service in one of its runs: the
// record, which is durable, and what only this run has seen. It is pure: no I/O,
// no clock, no randomness. It is a value: Query and Change return the next Seat,
// and the caller makes a changed Record durable before it adopts that Seat or
// lets the answer out.
//
// Requests and queries are taken to be well formed; Register checks them.
type Seat struct {
	Record Record

	// Renewed is when the holder last had to be taken for alive: it renewed,
	// the record was made, or the run began, since nobody knows what the run
	// before had just told. On the witness's clock.
	Renewed time.Duration

	// Heard is what the nodes have said since the record was found wanting:
	// empty, or older than what a node knows (rule 16). In the order of their
	// names. It is zero while the record is in order.
	Heard [2]Heard
}

// Heard is what one node has said of itself.
type Heard struct {
	Node    string // "" for nobody
	View    View
	Timeout time.Duration
}

// NewSeat returns the seat of a record that was found when the run began.
func NewSeat(record Record, now time.Duration) Seat {
	if mutated("a restarted witness waits") {
		now -= MaxTimeout
	}
	return Seat{Record: record, Renewed: now}
}

// Margin is how much longer than a lease of that length others wait before they
// take it for over: clocks whose rates differ by less than a tenth do no harm.
func Margin(timeout time.Duration) time.Duration { return timeout / 10 }

// Query answers with the record as it is; now becomes the answer's stamp.
//
// It renews only for a holder that serves and that heard an answer within its
// timeout: one that cannot hear the witness, or has stopped, or waits, must not
// keep the other node out (F12 of the protocol's review). A query that was
// delayed can renew in its sender's name for one timeout after the last answer
// that it got, and no longer.
func (s Seat) Query(now Stamp, q Query) (Seat, Answer) {
	s.hear(now.At, &q)
	renewed := s.inOrder() && q.From == s.Record.Holder && (q.Serving && q.Seen.recent(now, q.Timeout) || mutated("only a serving holder that hears renews"))
	if renewed {
		s.Renewed = now.At
		// A lease lasts as long as its holder says now, and so must the wait
		// for it, by a restarted witness too.
		s.Record.Timeout = max(s.Record.Timeout, q.Timeout)
	}
	return s, Answer{Renewed: renewed, Record: s.Record, Reason: s.wanting(q.Service), Stamp: now}
}

// Change decides on a request; now becomes the answer's stamp.
//
// The order of the questions is the safety argument. First the repeat, known by
// the digest of the whole request and nothing less: a holder and an epoch that
// match may be somebody else's doing (a handover makes the very record that a
// takeover asks for). Then its age: a request that its sender has given up must
// not win. Then whether the record can be relied on at all. Then the epoch: it is
// compared and raised by every change, so a late or doubled request can only
// miss. Only then who asks for what.
func (s Seat) Change(now Stamp, q Request) (Seat, Answer) {
	digest := q.digest()
	if s.inOrder() && (digest == s.Record.Digest || mutated("only the very request is a repeat") && q.Holder == s.Record.Holder && q.epoch() == s.Record.Epoch) {
		return s, Answer{Granted: true, Record: s.Record, Stamp: now}
	}
	if refused := s.judge(now, &q); refused.Reason != "" {
		refused.Record, refused.Stamp = s.Record, now
		return s, refused
	}
	s = NewSeat(Record{
		Epoch:   q.epoch(),
		Holder:  q.Holder,
		Mode:    q.Mode,
		Token:   q.Token,
		Digest:  digest,
		Timeout: q.Timeout,
	}, now.At)
	return s, Answer{Granted: true, Record: s.Record, Stamp: now}
}

// recent reports whether the answer with this stamp was given in this run, and
// less than timeout ago. A later one was never given.
func (seen Stamp) recent(now Stamp, timeout time.Duration) bool {
	return seen.Run == now.Run && seen.At <= now.At && now.At-seen.At < timeout
}
