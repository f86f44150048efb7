// SPDX-License-Identifier: Apache-2.0

package failover_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	. "github.com/twinbd/twinbd/failover"
)

// history drives one seat as a hostile network, two forgetful nodes and a
// restarting witness would, and remembers what must hold.
type history struct {
	seat     Seat
	now      Stamp
	stamps   []Stamp
	requests []Request // all that were ever sent: each may arrive again
	queries  []Query

	maker     map[uint64]Request // who made each epoch
	got       map[Request]View   // what each granted request was told
	lease     time.Duration      // until then the holder may serve in pair, by a clock that is a tenth slower
	quiet     time.Duration      // when the record was made, or the run began
	takeovers int
}

func (h *history) pass(t *rapid.T) {
	h.now.At += time.Duration(rapid.SampledFrom([]int64{1, 1e6, 250e6, 1e9, 3e9, 33e8, 5e9}).Draw(t, "pass"))
}

func (h *history) restart() {
	h.now.Run++
	h.seat = NewSeat(h.seat.Record, h.now.At)
	h.quiet = h.now.At
}

func (h *history) stamp(t *rapid.T) Stamp {
	last := len(h.stamps) - 1
	switch kind := rapid.IntRange(0, 9).Draw(t, "stamp"); {
	case kind == 9 || last < 0:
		return Stamp{Run: h.now.Run, At: h.now.At + time.Duration(rapid.Int64Range(-5e9, 5e9).Draw(t, "at"))}
	case kind > 5:
		return h.stamps[rapid.IntRange(max(0, last-3), last).Draw(t, "which")]
	}
	return h.now // just read
}

var (
	drawNode    = rapid.SampledFrom([]string{"a", "b"})
	drawTimeout = rapid.SampledFrom([]time.Duration{timeout, timeout, timeout, time.Second, 10 * time.Second})
)

func (h *history) query(t *rapid.T) {
	q := Query{
		Cluster: "c", Service: "s", From: drawNode.Draw(t, "node"), Serving: rapid.Bool().Draw(t, "serving"),
		Seen: h.stamp(t), Timeout: drawTimeout.Draw(t, "timeout"),
	}
	if len(h.queries) > 0 && rapid.IntRange(0, 9).Draw(t, "late") > 7 {
		q = rapid.SampledFrom(h.queries).Draw(t, "which")
	}
	h.queries = append(h.queries, q)
	before := h.seat
	next, a := h.seat.Query(h.now, q)
	switch {
	case next.Record.View() != before.Record.View():
		t.Fatalf("a query of who knows nothing more made %v of %v", next.Record, before.Record)
	case a.Renewed && (q.From != next.Record.Holder || !q.Serving || q.Seen.Run != h.now.Run || h.now.At-q.Seen.At >= q.Timeout):
		t.Fatalf("%+v renewed at %+v", q, h.now)
	case a.Renewed:
		h.lease = max(h.lease, h.now.At+q.Timeout+Margin(q.Timeout))
	}
	h.seat, h.stamps = next, append(h.stamps, a.Stamp)
}

func (h *history) request(t *rapid.T) Request {
	if len(h.requests) > 0 && rapid.IntRange(0, 9).Draw(t, "late") > 6 {
		return rapid.SampledFrom(h.requests).Draw(t, "which")
	}
	r := h.seat.Record
	q := Request{
		Cluster: "c", Service: "s", From: drawNode.Draw(t, "node"), Holder: drawNode.Draw(t, "holder"),
		Mode: Pair, Replaces: r.Epoch, Seen: h.stamp(t), Timeout: drawTimeout.Draw(t, "timeout"),
		Token: Token{byte(len(h.requests)), byte(len(h.requests) >> 8), 1},
	}
	if q.From != r.Holder || rapid.Bool().Draw(t, "alone") {
		q.Mode = Alone
	}
	switch kind := rapid.IntRange(0, 19).Draw(t, "kind"); {
	case kind < 12 && q.From != r.Holder:
		q.Holder = q.From
	case kind == 16:
		q.Replaces = max(1, r.Epoch) - 1
	case kind == 17:
		q.RaiseTo = r.Epoch + uint64(rapid.IntRange(0, 3).Draw(t, "raise"))
	case kind == 18:
		q.Claim = r.Epoch + uint64(rapid.IntRange(0, 3).Draw(t, "claim"))
		q.RaiseTo, q.Mode = q.Claim+uint64(rapid.IntRange(0, 2).Draw(t, "over")), Alone
	case kind == 19 || r.Empty():
		q.Operator, q.Holder, q.Mode = true, q.From, Alone
	}
	return q
}

func (h *history) change(t *rapid.T) {
	q := h.request(t)
	h.requests = append(h.requests, q)
	before := h.seat
	next, a := h.seat.Change(h.now, q)
	h.seat, h.stamps = next, append(h.stamps, a.Stamp)
	switch {
	case !a.Granted && next != before, a.Void && a.Granted:
		t.Fatalf("%+v: %+v changed %+v to %+v", q, a, before, next)
	case !a.Granted:
		return
	case next.Record.Epoch < before.Record.Epoch:
		t.Fatalf("the epoch fell from %v to %v", before.Record, next.Record)
	}
	if m, ok := h.maker[next.Record.Epoch]; ok && m != q {
		t.Fatalf("epoch %d was made by %+v and by %+v", next.Record.Epoch, m, q)
	}
	if g, ok := h.got[q]; ok && g != next.Record.View() {
		t.Fatalf("%+v got %v and %v", q, g, next.Record)
	}
	h.maker[next.Record.Epoch], h.got[q] = q, next.Record.View()
	if next == before {
		return // a repeat
	}
	h.granted(t, before.Record, q)
}

// granted: what a request that is granted anew must not be, and what follows.
func (h *history) granted(t *rapid.T, was Record, q Request) {
	switch {
	case q.Seen.Run != h.now.Run || h.now.At-q.Seen.At >= q.Timeout || q.Seen.At > h.now.At:
		t.Fatalf("%+v granted at %+v", q, h.now)
	case was.Empty() && !q.Operator:
		t.Fatalf("%+v granted by an empty witness", q)
	}
	wait := max(was.Timeout, q.Timeout)
	if takeover := !was.Empty() && q.From != was.Holder && !q.Operator && q.Claim == 0; takeover {
		switch {
		case was.Mode != Pair || q.Holder != q.From || q.Mode != Alone:
			t.Fatalf("%+v took over from %v", q, was)
		case h.now.At < h.lease, h.now.At < h.quiet+wait+Margin(wait):
			t.Fatalf("%+v took over at %v, within the lease until %v or too soon after %v", q, h.now.At, h.lease, h.quiet)
		}
		h.takeovers++
	}
	h.lease, h.quiet = h.now.At+q.Timeout+Margin(q.Timeout), h.now.At
}

// Requests and queries arrive late, doubled and in any order, and the witness
// restarts: each epoch has one maker, a request that was granted twice got the
// same record, and nobody takes over from a holder whose lease may last.
func TestSeatAnyHistory(t *testing.T) {
	takeovers := 0
	rapid.Check(t, func(t *rapid.T) {
		h := &history{now: Stamp{Run: 1, At: noon}, maker: map[uint64]Request{}, got: map[Request]View{}}
		if rapid.Bool().Draw(t, "begun") {
			h.seat, h.quiet = NewSeat(kept(5, Pair), noon), noon
		}
		for range 200 {
			switch kind := rapid.IntRange(0, 99).Draw(t, "step"); {
			case kind < 30: // small numbers are drawn more often
				h.change(t)
			case kind < 60:
				h.pass(t)
			case kind < 95:
				h.query(t)
			default:
				h.restart()
			}
		}
		takeovers += h.takeovers
	})
	if takeovers == 0 {
		t.Error("nobody ever took over, so nothing was tested")
	}
}

// A witness is restored to any of its earlier records, and the nodes know what
// they know: what is granted then is above all that was ever told, and nothing
// is granted while only one has spoken.
func TestSeatRestoredToAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var views [2]View
		draw := func(name string) View {
			v := View{Epoch: uint64(rapid.IntRange(0, 4).Draw(t, name))}
			if v.Epoch > 0 {
				v.Holder, v.Mode = drawNode.Draw(t, name+" holder"), Mode(rapid.IntRange(1, 2).Draw(t, name+" mode"))
			}
			return v
		}
		views[0], views[1] = draw("a knows"), draw("b knows")
		had := draw("the witness has")
		seat := NewSeat(Record{Epoch: had.Epoch, Holder: had.Holder, Mode: had.Mode, Timeout: timeout}, 0)
		if had.Epoch == 0 {
			seat = Seat{}
		}
		var spoken, since [2]bool // ever; since the first that knew more
		lost := had.Epoch == 0
		for range rapid.IntRange(1, 6).Draw(t, "words") {
			i := rapid.IntRange(0, 1).Draw(t, "who")
			before := seat
			var a Answer
			seat, a = seat.Query(moment(noon), says(string("ab"[i]), views[i]))
			v := views[i]
			if before.Record.View() == had {
				lost = lost || v.Epoch > had.Epoch || v.Epoch == had.Epoch && v != had
			}
			spoken[i], since[i] = true, since[i] || lost
			if seat.Record.View() != had && since != [2]bool{true, true} {
				t.Fatalf("%+v became %+v when only one had spoken", before, seat)
			}
			if top := max(views[0].Epoch, views[1].Epoch, had.Epoch); seat.Record.View() != had && seat.Record.Epoch != top {
				t.Fatalf("restored %v, and %v and %v were known", seat.Record, views[0], views[1])
			}
			for _, q := range []Request{
				ask(replaces(seat.Record.Epoch)), takeover(replaces(seat.Record.Epoch)), takeover(replaces(seat.Record.Epoch), claim(9, 9)),
			} {
				next, grant := seat.Change(moment(noon), q)
				if grant.Granted && (a.Reason != "" || next.Record.Epoch <= v.Epoch) {
					t.Fatalf("%+v granted %v, where %q", seat, next.Record, a.Reason)
				}
			}
		}
	})
}
