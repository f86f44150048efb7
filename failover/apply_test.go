// SPDX-License-Identifier: Apache-2.0

package failover_test

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	. "github.com/twinbd/twinbd/failover"
)

// ask returns a request of a that replaces epoch 5 and makes a alone, changed by
// the functions.
func ask(change ...func(*Request)) Request {
	q := Request{
		Cluster: "c", Service: "s", From: "a", Replaces: 5,
		Holder: "a", Mode: Alone, Token: Token{1},
	}
	for _, f := range change {
		f(&q)
	}
	return q
}

func from(name string) func(*Request)   { return func(q *Request) { q.From = name } }
func holder(name string) func(*Request) { return func(q *Request) { q.Holder = name } }
func mode(m Mode) func(*Request)        { return func(q *Request) { q.Mode = m } }
func replaces(e uint64) func(*Request)  { return func(q *Request) { q.Replaces = e } }
func operator(raise uint64) func(*Request) {
	return func(q *Request) { q.Operator, q.RaiseTo = true, raise }
}

func TestApply(t *testing.T) {
	pair := Record{Epoch: 5, Holder: "a", Mode: Pair, Token: Token{9}}
	alone := Record{Epoch: 5, Holder: "a", Mode: Alone, Token: Token{9}}
	top := Record{Epoch: MaxEpoch, Holder: "a", Mode: Pair, Token: Token{9}}
	for _, c := range []struct {
		name    string
		record  Record
		request Request
		want    string // the new record, or a part of the reason
	}{
		{"holder goes alone", pair, ask(), "epoch 6, held by a (alone)"},
		{"holder alone asks alone again, which voids a pair under way", alone, ask(), "epoch 6, held by a (alone)"},
		{"holder returns to pair", alone, ask(mode(Pair)), "epoch 6, held by a (pair)"},
		{"holder hands over in pair", pair, ask(holder("b"), mode(Pair)), "epoch 6, held by b (pair)"},
		{"holder hands over alone", pair, ask(holder("b")), "epoch 6, held by b (alone)"},
		{"holder alone hands over", alone, ask(holder("b")), "epoch 6, held by b (alone)"},
		{"other takes over from a pair", pair, ask(from("b"), holder("b")), "epoch 6, held by b (alone)"},
		{"other may not take over in pair mode", pair, ask(from("b"), holder("b"), mode(Pair)), "is alone first"},
		{"other may not take over from alone", alone, ask(from("b"), holder("b")), "b may lack writes: the service is at epoch 5, held by a (alone)"},
		{"other may not write the holder", alone, ask(from("b"), mode(Pair)), "only the holder hands over"},
		{"old epoch", pair, ask(replaces(4)), "a names epoch 4, but the service is at epoch 5, held by a (pair)"},
		{"newer epoch than the record", pair, ask(replaces(6)), "it has lost newer records"},
		{"empty grants nothing", Record{}, ask(replaces(0)), "run `twinbd prim s`"},
		{"empty grants nothing to who knows more", Record{}, ask(), "the witness has only no record"},
		{"operator, empty", Record{}, ask(replaces(0), operator(0)), "epoch 1, held by a (alone)"},
		{"operator raises an empty one", Record{}, ask(replaces(0), operator(9)), "epoch 9, held by a (alone)"},
		{"operator forces past alone", alone, ask(from("b"), holder("b"), operator(0)), "epoch 6, held by b (alone)"},
		{"operator raises past any number", alone, ask(from("b"), holder("b"), operator(1000)), "epoch 1000, held by b (alone)"},
		{"operator compares too", alone, ask(from("b"), holder("b"), replaces(4), operator(1000)), "b names epoch 4"},
		{"operator may not lower", alone, ask(operator(4)), "nobody lowers an epoch"},
		{"operator may not stay", alone, ask(operator(5)), "nobody lowers an epoch"},
		{"operator chooses the node that asks", pair, ask(holder("b"), operator(0)), "chooses the node that asks"},
		{"operator's choice is alone", pair, ask(mode(Pair), operator(0)), "alone until the peer is in step"},
		{"only an operator skips", pair, ask(func(q *Request) { q.RaiseTo = 9 }), "only an operator raises"},
		{"token of the last change", pair, ask(func(q *Request) { q.Token = Token{9} }), "token of the last change"},
		{"no token", pair, ask(func(q *Request) { q.Token = Token{} }), "has no token"},
		{"no mode", pair, ask(mode(0)), "none is not a mode"},
		{"wild mode", pair, ask(mode(7)), "mode 7 is not a mode"},
		{"bad holder", pair, ask(holder("../b")), `"../b" cannot name a holder`},
		{"numbers end", top, ask(replaces(MaxEpoch)), "there is no epoch above"},
		{"numbers do not wrap", Record{}, ask(replaces(0), operator(1<<64-1)), "there is no epoch above"},
	} {
		t.Run(c.name, func(t *testing.T) {
			next, answer := Apply(c.record, c.request)
			switch {
			case answer.Record != next:
				t.Errorf("the answer has %v and the record is %v", answer.Record, next)
			case answer.Granted && next.String() != c.want:
				t.Errorf("granted %v, want %s", next, c.want)
			case !answer.Granted && !strings.Contains(answer.Reason, c.want):
				t.Errorf("refused with %q, want %s", answer.Reason, c.want)
			case !answer.Granted && next != c.record:
				t.Errorf("refused, but changed to %v", next)
			case !answer.Granted && strings.Contains(answer.Reason, "\n"):
				t.Errorf("the reason has several lines: %q", answer.Reason)
			}
			// What is refused says who holds what.
			if !answer.Granted && !c.record.Empty() && !strings.Contains(answer.Reason, c.record.String()) {
				t.Errorf("the reason does not name the record: %q", answer.Reason)
			}
		})
	}
}

// A repeat is the very request, not one with the same effect: a handover makes
// the record that a takeover asks for (G6 of the protocol's review).
func TestApplyRepeat(t *testing.T) {
	start := Record{Epoch: 5, Holder: "a", Mode: Pair}
	handover := ask(holder("b"))
	takeover := ask(from("b"), holder("b"))
	made, _ := Apply(start, handover)
	if made.Holder != "b" || made.Epoch != 6 {
		t.Fatalf("handover made %v", made)
	}
	for _, c := range []struct {
		name    string
		request Request
		granted bool
	}{
		{"the very request", handover, true},
		{"a takeover with the same token and effect", takeover, false},
		{"same token, newer answer seen", ask(holder("b"), func(q *Request) { q.Seen = 3 }), false},
		{"same effect, other token", ask(holder("b"), func(q *Request) { q.Token = Token{2} }), false},
		{"same in another service", ask(holder("b"), func(q *Request) { q.Service = "t" }), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			next, answer := Apply(made, c.request)
			if next != made || answer.Granted != c.granted {
				t.Errorf("granted %v with %v, want %v with %v", answer.Granted, next, c.granted, made)
			}
		})
	}
	later, _ := Apply(made, ask(from("b"), holder("b"), replaces(6), func(q *Request) { q.Token = Token{3} }))
	if _, answer := Apply(later, handover); later.Epoch != 7 || answer.Granted {
		t.Errorf("a repeat was granted after another change: %+v at %v", answer, later)
	}
}

// small is every request over two nodes and small numbers.
func small() (all []Request) {
	for bits := range 256 {
		bit := func(i int) int { return bits >> i & 1 }
		name := func(i int) string { return string("ab"[bit(i)]) }
		all = append(all, Request{
			Cluster: "c", Service: "s", From: name(0), Holder: name(1),
			Mode: Mode(1 + bit(2)), Operator: bit(3) == 1, RaiseTo: uint64(3 * bit(4)),
			Replaces: uint64(bits >> 5 & 3), Token: Token{byte(1 + bit(7))},
		})
	}
	return all
}

// may is rule 16 as a list of rows, for comparison with Apply's questions.
func may(r Record, q Request) bool {
	type row struct {
		asker, becomes string // seen from the record's holder; "any"
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
	if q.Replaces != r.Epoch {
		return false
	}
	if q.Operator {
		return becomes == "self" && q.Mode == Alone && (q.RaiseTo == 0 || q.RaiseTo > r.Epoch)
	}
	for _, w := range rows {
		if w == (row{asker, becomes, r.Mode, q.Mode}) {
			return q.RaiseTo == 0
		}
	}
	return false
}

// Every record that can be reached up to epoch 3, against every request.
func TestApplyExhaustive(t *testing.T) {
	requests := small()
	seen := map[Record]bool{{}: true}
	queue := []Record{{}}
	for len(queue) > 0 {
		r := queue[0]
		queue = queue[1:]
		for _, q := range requests {
			next, answer := Apply(r, q)
			checkStep(t, r, q, next, answer)
			if next == r {
				continue
			}
			checkOnce(t, requests, r, q, next)
			if !seen[next] && next.Epoch <= 3 {
				seen[next] = true
				queue = append(queue, next)
			}
		}
		if t.Failed() {
			return
		}
	}
	if len(seen) < 50 {
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
	case fresh && !q.Operator && (next.Epoch != q.Replaces+1 || r.Empty()):
		t.Errorf("%v + %+v: a node's own request made %v", r, q, next)
	case fresh && (next.Holder != q.Holder || next.Mode != q.Mode || next.Token != q.Token):
		t.Errorf("%v + %+v: not what was asked: %v", r, q, next)
	case !answer.Granted && next != r:
		t.Errorf("%v + %+v: refused and changed to %v", r, q, next)
	case fresh && !may(r, q), !answer.Granted && may(r, q) && q.Token != r.Token:
		t.Errorf("%v + %+v: granted is %v, against the list", r, q, answer.Granted)
	}
}

// checkOnce: of all requests that replace the same epoch, only the one that was
// granted is granted again, with the same answer.
func checkOnce(t *testing.T, requests []Request, r Record, granted Request, next Record) {
	t.Helper()
	for _, q := range requests {
		again, answer := Apply(next, q)
		if q == granted && (!answer.Granted || again != next) {
			t.Errorf("%v: the repeat of %+v got %+v", r, q, answer)
		}
		if q != granted && q.Replaces == granted.Replaces && answer.Granted {
			t.Errorf("%v: two grants for epoch %d: %+v and %+v", r, q.Replaces, granted, q)
		}
	}
}

// Requests arrive late, doubled and in any order: each epoch has one maker, and a
// request that was granted twice got the same record.
func TestApplyAnyDelivery(t *testing.T) {
	requests := small()
	rapid.Check(t, func(t *rapid.T) {
		record := Record{}
		maker := map[uint64]Request{}
		got := map[Request]Record{}
		for range rapid.IntRange(1, 200).Draw(t, "deliveries") {
			q := rapid.SampledFrom(requests).Draw(t, "request")
			if rapid.Bool().Draw(t, "current") {
				q.Replaces, q.RaiseTo = record.Epoch, 0
			}
			next, answer := Apply(record, q)
			if next.Epoch < record.Epoch {
				t.Fatalf("the epoch fell from %v to %v", record, next)
			}
			record = next
			if !answer.Granted {
				continue
			}
			if m, ok := maker[record.Epoch]; ok && m != q {
				t.Fatalf("epoch %d was made by %+v and by %+v", record.Epoch, m, q)
			}
			if g, ok := got[q]; ok && g != record {
				t.Fatalf("%+v got %v and %v", q, g, record)
			}
			maker[record.Epoch], got[q] = q, record
		}
	})
}

func TestCheckName(t *testing.T) {
	for _, name := range []string{"a", "postgres", "node-1", "0", strings.Repeat("x", 63)} {
		if err := CheckName("service", name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", ".", "..", "a/b", `a\b`, "a.b", "A", "-a", "a b", "a\x00", "é", strings.Repeat("x", 64)} {
		err := CheckName("service", name)
		if err == nil || !strings.Contains(err.Error(), "cannot name a service; expected") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func ExampleApply() {
	record, answer := Apply(Record{}, Request{
		Cluster: "systel", Service: "postgres", From: "alpha",
		Holder: "alpha", Mode: Alone, Operator: true, Token: NewToken(),
	})
	fmt.Println(answer.Granted, record)

	_, answer = Apply(record, Request{
		Cluster: "systel", Service: "postgres", From: "beta",
		Replaces: 1, Holder: "beta", Mode: Alone, Token: NewToken(),
	})
	fmt.Println(answer.Granted, answer.Reason)
	// Output:
	// true epoch 1, held by alpha (alone)
	// false beta may lack writes: the service is at epoch 1, held by alpha (alone)
}
