// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"fmt"
	"time"
)

// A witness can lose records: its disk is replaced, or it is restored from an
// older copy. What it would then grant, it has granted before, to somebody who
// may still go by it (F15 of the protocol's review). The nodes know: each says
// with every query what it has durably seen of the record. From the first that
// knows more, the seat grants and renews nothing until both have spoken, and
// then goes by the newest that either knows. Nothing that a node said before
// that moment counts: a machine restored while it runs would remember it.

// inOrder reports whether the record can be gone by.
func (s *Seat) inOrder() bool { return !s.Record.Empty() && s.Heard == [2]Heard{} }

// hear takes what a node knows of the record.
func (s *Seat) hear(now time.Duration, q *Query) {
	if s.inOrder() && !s.Record.lacks(q.Knows) {
		return
	}
	said := Heard{Node: q.From, View: q.Knows, Timeout: q.Timeout}
	switch first, second := &s.Heard[0], &s.Heard[1]; {
	case first.Node == "" || first.Node == q.From:
		*first = said
	case second.Node == "" || second.Node == q.From:
		*second = said
	}
	// A third name is nobody's: a service has two nodes, and which of three
	// they are only the operator can say.
	if s.Heard[1].Node != "" && s.Heard[1].Node < s.Heard[0].Node {
		s.Heard[0], s.Heard[1] = s.Heard[1], s.Heard[0]
	}
	s.restore(now)
}

// lacks reports whether v is newer than the record, or contradicts it.
func (r *Record) lacks(v View) bool {
	return v.Epoch > r.Epoch || v.Epoch == r.Epoch && v != r.View()
}

// restore makes the newest that the nodes know the record, once both have
// spoken. Whoever holds it has its time to be heard.
func (s *Seat) restore(now time.Duration) {
	newest, agreed := s.newest()
	if s.Heard[1].Node == "" || !agreed || newest.Epoch == 0 {
		return
	}
	timeout := max(s.Record.Timeout, s.Heard[0].Timeout, s.Heard[1].Timeout)
	*s = NewSeat(Record{Epoch: newest.Epoch, Holder: newest.Holder, Mode: newest.Mode, Timeout: timeout}, now)
}

// newest is the highest view of all, the record's own included, and whether
// those of that epoch agree.
func (s *Seat) newest() (v View, agreed bool) {
	v, agreed = s.Record.View(), true
	for _, h := range s.Heard {
		switch {
		case h.View.Epoch > v.Epoch:
			v, agreed = h.View, true
		case h.View.Epoch == v.Epoch && h.View != v:
			agreed = false
		}
	}
	return v, agreed
}

// wanting says in one sentence why a record that is not in order grants nothing
// to a node, or nothing.
func (s *Seat) wanting(service string) string {
	newest, _ := s.newest()
	switch {
	case s.inOrder():
		return ""
	case newest.Epoch == 0:
		return fmt.Sprintf("the witness has no record of service %s (epoch 0, no holder): "+
			"run `twinbd prim %s` on the node whose data is to be used", service, service)
	case s.Heard[1].Node == "":
		return fmt.Sprintf("the witness has lost records: %s knows epoch %d, and the witness has %v; "+
			"it grants nothing until the other node has spoken too", s.Heard[0].Node, newest.Epoch, s.Record)
	}
	a, b := &s.Heard[0], &s.Heard[1]
	return fmt.Sprintf("the witness has lost records, and epoch %d was given twice: %s knows %v, %s knows %v, and the witness has %v; "+
		"run `twinbd primforce %s` on the node whose data is to be used",
		newest.Epoch, a.Node, a.View, b.Node, b.View, s.Record, service)
}
