// SPDX-License-Identifier: Apache-2.0

package failover_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	. "github.com/twinbd/twinbd/failover"
)

// The tests of a seat happen at noon, in run 7 of the witness, with the timeout
// of a normal pace. Nodes a and b share service s.
const (
	noon     = 12 * time.Hour
	timeout  = 3 * time.Second
	patience = timeout + timeout/10
	thisRun  = 7
)

func moment(at time.Duration) Stamp { return Stamp{Run: thisRun, At: at} }

// ask returns a request of a that replaces epoch 5 and makes a alone, and names
// an answer of a moment ago, changed by the functions.
func ask(change ...func(*Request)) Request {
	q := Request{
		Cluster: "c", Service: "s", From: "a", Replaces: 5,
		Holder: "a", Mode: Alone, Token: Token{1}, Seen: moment(noon - time.Second), Timeout: timeout,
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
func raise(e uint64) func(*Request)     { return func(q *Request) { q.RaiseTo = e } }
func token(b byte) func(*Request)       { return func(q *Request) { q.Token = Token{b} } }
func seen(s Stamp) func(*Request)       { return func(q *Request) { q.Seen = s } }
func claim(number, to uint64) func(*Request) {
	return func(q *Request) { q.Claim, q.RaiseTo = number, to }
}
func operator(raise uint64) func(*Request) {
	return func(q *Request) { q.Operator, q.RaiseTo = true, raise }
}
func within(t time.Duration) func(*Request) { return func(q *Request) { q.Timeout = t } }

// takeover is b's request at epoch 5.
func takeover(change ...func(*Request)) Request {
	return ask(append([]func(*Request){from("b"), holder("b")}, change...)...)
}

// kept is a record of a's.
func kept(epoch uint64, m Mode) Record {
	return Record{Epoch: epoch, Holder: "a", Mode: m, Token: Token{9}, Timeout: timeout}
}

// silent is a seat whose holder has been silent for that long at noon.
func silent(r Record, since time.Duration) Seat { return NewSeat(r, noon-since) }

// Rule 16, question by question, and what of rules 17 to 19 the witness sees.
func TestChange(t *testing.T) {
	pair, alone := silent(kept(5, Pair), time.Hour), silent(kept(5, Alone), time.Hour)
	empty, top := Seat{}, silent(kept(MaxEpoch, Pair), time.Hour)
	slow := silent(kept(5, Pair), patience)
	slow.Record.Timeout = 10 * time.Second
	for _, c := range []struct {
		name    string
		seat    Seat
		request Request
		want    string // the new record, or a part of the reason
	}{
		{"holder goes alone", pair, ask(), "epoch 6, held by a (alone)"},
		{"holder goes alone at once", silent(kept(5, Pair), 0), ask(), "epoch 6, held by a (alone)"},
		{"holder alone asks alone again, which voids a pair under way", alone, ask(), "epoch 6, held by a (alone)"},
		{"holder returns to pair", alone, ask(mode(Pair)), "epoch 6, held by a (pair)"},
		{"rule 17: holder hands over in pair", pair, ask(holder("b"), mode(Pair)), "epoch 6, held by b (pair)"},
		{"rule 17: at once", silent(kept(5, Pair), 0), ask(holder("b"), mode(Pair)), "epoch 6, held by b (pair)"},
		{"rule 18: holder names the peer, alone", pair, ask(holder("b")), "epoch 6, held by b (alone)"},
		{"rule 22: holder alone gives", alone, ask(holder("b")), "epoch 6, held by b (alone)"},
		{"G8: holder raises past what it was told", alone, ask(mode(Pair), raise(9)), "epoch 9, held by a (pair)"},

		{"other takes over from a silent pair", pair, takeover(), "epoch 6, held by b (alone)"},
		{"other takes over past what it was told", pair, takeover(raise(9)), "epoch 9, held by b (alone)"},
		{"F16: other may not take over in pair mode", pair, takeover(mode(Pair)), "is alone first"},
		{"other may not take over from alone", alone, takeover(), "b may lack writes: the service is at epoch 5, held by a (alone)"},
		{"other may not write the holder", alone, takeover(holder("a"), mode(Pair)), "only the holder hands over"},
		{"other waits for the whole margin", silent(kept(5, Pair), patience-1), takeover(), "the holder may still serve for 0s"},
		{"other waits no longer", silent(kept(5, Pair), patience), takeover(), "epoch 6, held by b (alone)"},
		{"other waits for the holder's longer lease", slow, takeover(), "the holder may still serve for 7.7s"},
		{"other waits for its own longer one", silent(kept(5, Pair), patience), takeover(within(10 * time.Second)), "the holder may still serve for 7.7s"},

		{"void: an answer of another run", pair, ask(seen(Stamp{thisRun + 1, noon})), "to ask anew"},
		{"void: no answer at all", pair, ask(seen(Stamp{})), "to ask anew"},
		{"void: an answer that was never given", pair, ask(seen(moment(noon + 1))), "to ask anew"},
		{"void: too old", pair, ask(seen(moment(noon - timeout))), "within the last 3s"},
		{"just young enough", pair, ask(seen(moment(noon - timeout + 1))), "epoch 6, held by a (alone)"},
		{"void: an operator's too", pair, ask(operator(0), seen(moment(noon-timeout))), "to ask anew"},
		{"void: before an epoch is looked at", pair, ask(replaces(1), seen(Stamp{})), "to ask anew"},
		{"void is by the asker's timeout, which it counts itself", slow, ask(seen(moment(noon - timeout))), "to ask anew"},

		{"F13: old epoch", pair, ask(replaces(4)), "a names epoch 4, but the service is at epoch 5, held by a (pair)"},
		{"newer epoch than the record", pair, ask(replaces(6)), "a names epoch 6, but the service is at epoch 5"},
		{"nobody lowers", pair, ask(raise(4)), "nobody lowers an epoch"},
		{"nobody stays", pair, ask(raise(5)), "nobody lowers an epoch"},
		{"F14: in step in another epoch", pair, takeover(replaces(4)), "b names epoch 4"},
		{"token of the last change", pair, ask(token(9)), "token of the last change"},
		{"numbers end", top, ask(replaces(MaxEpoch)), "there is no epoch above"},
		{"numbers do not wrap", empty, ask(replaces(0), operator(1<<64-1)), "there is no epoch above"},

		{"rule 19: the promise's holder claims over another's record", pair, takeover(claim(6, 6)), "epoch 6, held by b (alone)"},
		{"rule 19: from an alone one, and at once", silent(kept(5, Alone), 0), takeover(claim(8, 9)), "epoch 9, held by b (alone)"},
		{"rule 22: the promise's holder gives", alone, takeover(holder("a"), claim(8, 9)), "epoch 9, held by a (alone)"},
		{"rule 19: a claim in its own record", pair, ask(claim(8, 8)), "epoch 8, held by a (alone)"},
		{"rule 19: the record has reached the number", alone, takeover(claim(5, 6)), "the promise 5 that b claims by has been passed"},
		{"rule 19: and a holder's is judged no other way", pair, ask(claim(5, 6)), "has been passed"},
		{"a claim compares too", alone, takeover(claim(8, 9), replaces(4)), "b names epoch 4"},

		{"empty grants nothing", empty, ask(replaces(0)), "run `twinbd prim s`"},
		{"empty grants no claim", empty, ask(replaces(0), claim(8, 9)), "run `twinbd prim s`"},
		{"operator, empty", empty, ask(replaces(0), operator(0)), "epoch 1, held by a (alone)"},
		{"operator raises an empty one", empty, ask(replaces(0), operator(9)), "epoch 9, held by a (alone)"},
		{"operator forces past alone", alone, takeover(operator(0)), "epoch 6, held by b (alone)"},
		{"operator does not wait", silent(kept(5, Alone), 0), takeover(operator(0)), "epoch 6, held by b (alone)"},
		{"operator raises past any number", alone, takeover(operator(1000)), "epoch 1000, held by b (alone)"},
		{"operator compares too", alone, takeover(replaces(4), operator(1000)), "b names epoch 4"},
		{"operator may not lower", alone, ask(operator(4)), "nobody lowers an epoch"},
		{"operator chooses the node that asks", pair, ask(holder("b"), operator(0)), "chooses the node that asks"},
		{"operator's choice is alone", pair, ask(mode(Pair), operator(0)), "alone until the peer is in step"},
	} {
		t.Run(c.name, func(t *testing.T) {
			next, answer := c.seat.Change(moment(noon), c.request)
			checkShape(t, c.seat, next, answer)
			switch {
			case answer.Granted && next.Record.String() != c.want:
				t.Errorf("granted %v, want %s", next.Record, c.want)
			case !answer.Granted && !strings.Contains(answer.Reason, c.want):
				t.Errorf("refused with %q, want %s", answer.Reason, c.want)
			case answer.Void != strings.HasPrefix(c.name, "void"):
				t.Errorf("void is %v", answer.Void)
			case (answer.Wait > 0) != strings.Contains(c.want, "may still serve"):
				t.Errorf("wait is %v", answer.Wait)
			}
		})
	}
}

// checkShape: what every answer to a change has in common.
func checkShape(t *testing.T, seat, next Seat, answer Answer) {
	t.Helper()
	switch {
	case answer.Record != next.Record || answer.Stamp != moment(noon) || answer.Renewed:
		t.Errorf("the answer is %+v and the record %v", answer, next.Record)
	case answer.Granted != (answer.Reason == ""), strings.Contains(answer.Reason, "\n"):
		t.Errorf("granted is %v, because %q", answer.Granted, answer.Reason)
	case answer.Granted && (next.Renewed != noon || next.Heard != [2]Heard{}):
		t.Errorf("a new holder does not have its time: %+v", next)
	case !answer.Granted && next != seat:
		t.Errorf("refused, and %+v became %+v", seat, next)
	// What is refused says who holds what.
	case !answer.Granted && !seat.Record.Empty() && !strings.Contains(answer.Reason, seat.Record.String()):
		t.Errorf("the reason does not name the record: %q", answer.Reason)
	}
}

// What is left to wait is exact, and then the other may.
func TestChangeWait(t *testing.T) {
	seat := silent(kept(5, Pair), time.Second)
	_, answer := seat.Change(moment(noon), takeover())
	if want := patience - time.Second; answer.Wait != want {
		t.Fatalf("wait %v, want %v", answer.Wait, want)
	}
	later := noon + answer.Wait
	if _, a := seat.Change(moment(later-1), takeover(seen(moment(later-2)))); a.Granted || a.Wait != 1 {
		t.Errorf("a moment early: %+v", a)
	}
	if _, a := seat.Change(moment(later), takeover(seen(moment(later-1)))); !a.Granted {
		t.Errorf("after the wait: %+v", a)
	}
}

// A repeat is the very request, not one with the same effect: a handover makes
// the record that a takeover asks for (G6 of the protocol's review).
func TestChangeRepeat(t *testing.T) {
	handover := ask(holder("b"))
	made, _ := silent(kept(5, Pair), time.Hour).Change(moment(noon), handover)
	if made.Record.String() != "epoch 6, held by b (alone)" {
		t.Fatalf("handover made %v", made.Record)
	}
	much := noon + 100*time.Hour
	for _, c := range []struct {
		name    string
		request Request
		granted bool
	}{
		{"the very request, whatever its age", handover, true},
		{"G6: a takeover with the same token and effect", takeover(), false},
		{"same token, newer answer seen", ask(holder("b"), seen(moment(much))), false},
		{"same effect, other token", ask(holder("b"), token(2)), false},
		{"same in another service", ask(holder("b"), func(q *Request) { q.Service = "t" }), false},
		{"another timeout", ask(holder("b"), within(time.Second)), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			next, answer := made.Change(moment(much), c.request)
			if next != made || answer.Granted != c.granted || answer.Record != made.Record {
				t.Errorf("%+v with %+v, want granted %v with %+v", answer, next, c.granted, made)
			}
		})
	}
	later, _ := made.Change(moment(noon), ask(from("b"), holder("b"), replaces(6), token(3)))
	if _, answer := later.Change(moment(much), handover); later.Record.Epoch != 7 || answer.Granted {
		t.Errorf("a repeat was granted after another change: %+v at %v", answer, later.Record)
	}
}

// F19: the lease that comes with a grant counts from the first time that it was
// asked for, for a repeated answer renews nothing.
func TestRepeatRenewsNothing(t *testing.T) {
	pair := ask(mode(Pair))
	seat, _ := silent(kept(5, Alone), time.Hour).Change(moment(noon), pair)
	seat, again := seat.Change(moment(noon+timeout), pair)
	if !again.Granted {
		t.Fatalf("repeat: %+v", again)
	}
	after := noon + patience
	if _, a := seat.Change(moment(after), takeover(replaces(6), token(2), seen(moment(after-1)))); !a.Granted {
		t.Errorf("the other, at its time: %+v", a)
	}
}

// G7: the handover lands first; the claim, asked anew, leaves no pair to take
// over from.
func TestClaimAfterHandover(t *testing.T) {
	seat, _ := silent(kept(5, Pair), time.Hour).Change(moment(noon), ask(holder("b"), mode(Pair)))
	if _, a := seat.Change(moment(noon), takeover(claim(8, 8), token(2))); a.Granted {
		t.Fatalf("a claim at the epoch before the handover: %+v", a)
	}
	seat, a := seat.Change(moment(noon), takeover(claim(8, 8), token(2), replaces(6)))
	if !a.Granted || a.Record.String() != "epoch 8, held by b (alone)" {
		t.Fatalf("the claim asked anew: %+v", a)
	}
	later := noon + time.Hour
	if _, a := seat.Change(moment(later), ask(replaces(8), token(3), seen(moment(later-1)))); a.Granted {
		t.Errorf("the former holder takes over: %+v", a)
	}
}

// Who renews, and who does not (rule 16, F12).
func TestQueryRenews(t *testing.T) {
	ago := func(d time.Duration) func(*Query) { return func(q *Query) { q.Seen = moment(noon - d) } }
	knows := func(v View) func(*Query) { return func(q *Query) { q.Knows = v } }
	for _, c := range []struct {
		name   string
		record Record
		change func(*Query)
		want   bool
	}{
		{"a holder that serves and hears", kept(5, Pair), func(*Query) {}, true},
		{"alone too", kept(5, Alone), func(*Query) {}, true},
		{"knowing less than the record", kept(5, Pair), knows(View{4, "b", Alone}), true},
		{"knowing it", kept(5, Pair), knows(View{5, "a", Pair}), true},
		{"one that only waits", kept(5, Pair), func(q *Query) { q.Serving = false }, false},
		{"the other", kept(5, Pair), func(q *Query) { q.From = "b" }, false},
		{"F12: one that heard its last answer a timeout ago", kept(5, Pair), ago(timeout), false},
		{"one that heard it just before", kept(5, Pair), ago(timeout - 1), true},
		{"one that heard none", kept(5, Pair), func(q *Query) { q.Seen = Stamp{} }, false},
		{"one that heard another run", kept(5, Pair), func(q *Query) { q.Seen.Run++ }, false},
		{"one that heard the future", kept(5, Pair), ago(-1), false},
		{"F15: one that knows more than the witness", kept(5, Pair), knows(View{6, "a", Alone}), false},
		{"nobody, in an empty witness", Record{}, func(*Query) {}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := Query{Cluster: "c", Service: "s", From: "a", Serving: true, Seen: moment(noon - time.Second), Timeout: timeout}
			c.change(&q)
			seat := silent(c.record, time.Hour)
			next, answer := seat.Query(moment(noon), q)
			switch {
			case answer.Renewed != c.want:
				t.Errorf("renewed is %v", answer.Renewed)
			case (next.Renewed == noon) != c.want, !c.want && next.Renewed != seat.Renewed:
				t.Errorf("renewed at %v", next.Renewed)
			case answer.Granted, answer.Void, answer.Stamp != moment(noon), answer.Record != c.record, next.Record != c.record:
				t.Errorf("answer %+v, record %v", answer, next.Record)
			}
		})
	}
}

// F12: nobody is kept out by a holder that speaks and cannot hear.
func TestDeafHolderLosesItsPlace(t *testing.T) {
	seat := silent(kept(5, Pair), 0)
	last := moment(noon) // the last answer that the holder heard
	granted := time.Duration(0)
	for at := noon; granted == 0 && at < noon+time.Minute; at += time.Second / 4 {
		seat, _ = seat.Query(moment(at), Query{Cluster: "c", Service: "s", From: "a", Serving: true, Seen: last, Timeout: timeout})
		if next, a := seat.Change(moment(at), takeover(seen(moment(at)))); a.Granted {
			seat, granted = next, at
		}
	}
	// It renews as long as what it heard was recent, and then no more.
	if most := noon + timeout + patience; granted <= noon+patience || granted > most {
		t.Errorf("granted after %v, want more than %v and at most %v", granted-noon, patience, most-noon)
	}
}

// A holder that takes longer leases than it asked with is waited for as long,
// by the next run too.
func TestRenewalKeepsLongerTimeout(t *testing.T) {
	long := Query{Cluster: "c", Service: "s", From: "a", Serving: true, Seen: moment(noon - 1), Timeout: 10 * time.Second}
	seat, a := silent(kept(5, Pair), time.Hour).Query(moment(noon), long)
	if !a.Renewed || seat.Record.Timeout != long.Timeout || a.Record != seat.Record {
		t.Fatalf("%+v, %+v", a, seat)
	}
	short := long
	short.Timeout = timeout
	if next, a := seat.Query(moment(noon), short); !a.Renewed || next.Record.Timeout != long.Timeout {
		t.Errorf("a shorter one: %+v, %+v", a, next)
	}
	short.From, short.Timeout = "b", time.Minute
	if next, _ := seat.Query(moment(noon), short); next != seat {
		t.Errorf("the other's: %+v", next)
	}
}

func ExampleSeat() {
	var seat Seat
	now := Stamp{Run: 1, At: time.Minute}
	seat, answer := seat.Change(now, Request{
		Cluster: "systel", Service: "postgres", From: "alpha", Seen: now, Timeout: 3 * time.Second,
		Holder: "alpha", Mode: Alone, Operator: true, Token: Token{1},
	})
	fmt.Println(answer.Granted, seat.Record)

	_, answer = seat.Change(now, Request{
		Cluster: "systel", Service: "postgres", From: "beta", Seen: now, Timeout: 3 * time.Second,
		Replaces: 1, Holder: "beta", Mode: Alone, Token: Token{2},
	})
	fmt.Println(answer.Granted, answer.Reason)
	// Output:
	// true epoch 1, held by alpha (alone)
	// false beta may lack writes: the service is at epoch 1, held by alpha (alone)
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
