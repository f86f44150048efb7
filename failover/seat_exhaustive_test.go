// SPDX-License-Identifier: Apache-2.0

package failover_test

import (
	"testing"
	"time"

	. "github.com/twinbd/twinbd/failover"
)

// small is every request over two nodes and small numbers that is well formed.
func small() (all []Request) {
	for bits := range 1 << 10 {
		bit := func(i int) int { return bits >> i & 1 }
		name := func(i int) string { return string("ab"[bit(i)]) }
		q := Request{
			Cluster: "c", Service: "s", From: name(0), Holder: name(1),
			Mode: Mode(1 + bit(2)), Operator: bit(3) == 1, RaiseTo: uint64(3 * bit(4)), Claim: uint64(2 * bit(5)),
			Replaces: uint64(bits >> 6 & 3), Token: Token{byte(1 + bit(8))}, Timeout: timeout, Seen: moment(noon - time.Duration(bit(9))),
		}
		if q.Claim == 0 || q.RaiseTo != 0 && q.Mode == Alone && !q.Operator {
			all = append(all, q)
		}
	}
	return all
}

// may is rules 16 to 19 as a list of rows, for comparison with the questions of
// judge. The holder has been silent for long, and every request is young.
func may(r Record, q Request) bool {
	type row struct {
		asker, becomes string // seen from the record's holder
		was, will      Mode
	}
	rows := []row{
		{"holder", "self", Pair, Alone},
		{"holder", "self", Pair, Pair},
		{"holder", "self", Alone, Alone},
		{"holder", "self", Alone, Pair},
		{"holder", "peer", Pair, Alone},
		{"holder", "peer", Pair, Pair},
		{"holder", "peer", Alone, Alone},
		{"holder", "peer", Alone, Pair},
		{"other", "self", Pair, Alone},
	}
	asker, becomes := "other", "peer"
	if q.From == r.Holder {
		asker = "holder"
	}
	if q.Holder == q.From {
		becomes = "self"
	}
	switch {
	case q.Replaces != r.Epoch, q.RaiseTo != 0 && q.RaiseTo <= r.Epoch:
		return false
	case q.Operator:
		return becomes == "self" && q.Mode == Alone
	case r.Empty():
		return false
	case q.Claim != 0:
		return q.Claim > r.Epoch // whoever asks, for whomever
	}
	for _, w := range rows {
		if w == (row{asker, becomes, r.Mode, q.Mode}) {
			return true
		}
	}
	return false
}

// Every record that can be reached up to epoch 3, against every request.
func TestChangeExhaustive(t *testing.T) {
	requests := small()
	seen := map[Record]bool{{}: true}
	queue := []Record{{}}
	for len(queue) > 0 && !t.Failed() {
		r := queue[0]
		queue = queue[1:]
		for _, q := range requests {
			next, answer := silent(r, time.Hour).Change(moment(noon), q)
			checkStep(t, r, q, next.Record, answer)
			if next.Record != r && !seen[next.Record] && next.Record.Epoch <= 3 {
				seen[next.Record] = true
				queue = append(queue, next.Record)
				checkOnce(t, requests, q, next)
			}
		}
	}
	if len(seen) < 100 {
		t.Errorf("only %d records were reached", len(seen))
	}
}

func checkStep(t *testing.T, r Record, q Request, next Record, answer Answer) {
	t.Helper()
	repeat := answer.Granted && next == r
	fresh := answer.Granted && !repeat
	switch {
	case answer.Record != next, answer.Granted == (answer.Reason != ""):
		t.Errorf("%v + %+v: inconsistent answer %+v", r, q, answer)
	case fresh && next.Epoch <= r.Epoch:
		t.Errorf("%v + %+v: the epoch does not rise: %v", r, q, next)
	case fresh && (next.Epoch != max(q.Replaces+1, q.RaiseTo) || next.Epoch < q.Claim):
		t.Errorf("%v + %+v: not the epoch that was asked for: %v", r, q, next)
	case fresh && (next.Holder != q.Holder || next.Mode != q.Mode || next.Token != q.Token || next.Timeout != q.Timeout):
		t.Errorf("%v + %+v: not what was asked: %v", r, q, next)
	case !answer.Granted && next != r:
		t.Errorf("%v + %+v: refused and changed to %v", r, q, next)
	case fresh && !may(r, q), !answer.Granted && may(r, q) && q.Token != r.Token:
		t.Errorf("%v + %+v: granted is %v, against the list", r, q, answer.Granted)
	}
}

// checkOnce: of all requests that replace the same epoch, only the one that was
// granted is granted again, with the same answer.
func checkOnce(t *testing.T, requests []Request, granted Request, next Seat) {
	t.Helper()
	for _, q := range requests {
		again, answer := next.Change(moment(noon), q)
		if q == granted && (!answer.Granted || again != next) {
			t.Errorf("the repeat of %+v got %+v", q, answer)
		}
		if q != granted && q.Replaces == granted.Replaces && answer.Granted {
			t.Errorf("two grants for epoch %d: %+v and %+v", q.Replaces, granted, q)
		}
	}
}
