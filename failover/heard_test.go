// SPDX-License-Identifier: Apache-2.0

package failover_test

import (
	"strings"
	"testing"
	"time"

	. "github.com/twinbd/twinbd/failover"
)

// says is a node's query, with what it knows of the record.
func says(node string, v View) Query {
	return Query{Cluster: "c", Service: "s", From: node, Knows: v, Timeout: timeout}
}

// F15: a witness that lost records grants nothing until both nodes have spoken,
// and then goes by the newest.
func TestLostRecords(t *testing.T) {
	var (
		nothing  = View{}
		fiveA    = View{5, "a", Pair}
		sixB     = View{6, "b", Alone}
		sixA     = View{6, "a", Alone}
		sevenA   = View{7, "a", Pair}
		restored = kept(5, Pair)
	)
	for _, c := range []struct {
		name   string
		record Record
		said   []Query
		want   string // the record after, or a part of why nothing is granted
	}{
		{"nobody knows more", restored, []Query{says("a", fiveA), says("b", nothing)}, "epoch 5, held by a (pair)"},
		{"one knows more, the other has not spoken", restored, []Query{says("b", sixB)},
			"b knows epoch 6, and the witness has epoch 5, held by a (pair)"},
		{"what was said before does not count", restored, []Query{says("a", fiveA), says("b", sixB)}, "until the other node has spoken"},
		{"nor what the same node says again", restored, []Query{says("b", sixB), says("b", sixB)}, "until the other node has spoken"},
		{"both have spoken", restored, []Query{says("b", sixB), says("a", fiveA)}, "epoch 6, held by b (alone)"},
		{"in the other order", restored, []Query{says("a", fiveA), says("b", sixB), says("a", fiveA)}, "epoch 6, held by b (alone)"},
		{"both know more", restored, []Query{says("b", sixB), says("a", sevenA)}, "epoch 7, held by a (pair)"},
		{"one learns more while it waits", restored, []Query{says("b", sixB), says("b", sevenA), says("a", nothing)}, "epoch 7, held by a (pair)"},
		{"an epoch given twice", restored, []Query{says("b", sixB), says("a", sixA)},
			"epoch 6 was given twice: a knows epoch 6, held by a (alone), b knows epoch 6, held by b (alone)"},
		{"an epoch given twice, once now", restored, []Query{says("b", View{5, "b", Alone}), says("a", fiveA)}, "epoch 5 was given twice"},
		{"a contradiction that something newer overtakes", restored, []Query{says("b", sixB), says("a", sixA), says("a", sevenA)}, "epoch 7, held by a (pair)"},
		{"a third name says nothing", restored, []Query{says("b", sixB), says("a", sixA), says("x", sevenA)}, "epoch 6 was given twice"},
		{"nothing below the record contradicts it", restored, []Query{says("b", View{4, "b", Alone}), says("a", fiveA)}, "epoch 5, held by a (pair)"},

		{"empty, one knows", Record{}, []Query{says("b", sixB)}, "b knows epoch 6, and the witness has no record"},
		{"empty, the other does not", Record{}, []Query{says("b", sixB), says("a", nothing)}, "epoch 6, held by b (alone)"},
		{"empty, first who does not", Record{}, []Query{says("a", nothing), says("b", sixB)}, "epoch 6, held by b (alone)"},
		{"empty, both know", Record{}, []Query{says("a", fiveA), says("b", sixB)}, "epoch 6, held by b (alone)"},
		{"empty, both know the same", Record{}, []Query{says("a", sixB), says("b", sixB)}, "epoch 6, held by b (alone)"},
		{"empty, neither knows", Record{}, []Query{says("a", nothing), says("b", nothing)}, "run `twinbd prim s`"},
		{"empty, they learn later", Record{}, []Query{says("a", nothing), says("b", nothing), says("a", fiveA)}, "epoch 5, held by a (pair)"},
		{"empty, contradictory", Record{}, []Query{says("a", sixA), says("b", sixB)}, "run `twinbd primforce s`"},
	} {
		t.Run(c.name, func(t *testing.T) {
			seat := silent(c.record, time.Hour)
			var answer Answer
			for _, q := range c.said {
				seat, answer = seat.Query(moment(noon), q)
				if answer.Record != seat.Record {
					t.Fatalf("the answer has %v and the seat %v", answer.Record, seat.Record)
				}
			}
			if seat.Record != c.record {
				checkRestored(t, seat)
			}
			if answer.Reason == "" && seat.Record.String() != c.want || !strings.Contains(answer.Reason+seat.Record.String(), c.want) {
				t.Errorf("%v with %q, want %s", seat.Record, answer.Reason, c.want)
			}
			checkGrants(t, seat, answer.Reason)
		})
	}
}

// checkRestored: nobody's request made the record, and its holder has its time.
func checkRestored(t *testing.T, seat Seat) {
	t.Helper()
	r := seat.Record
	if r.Token != (Token{}) || r.Digest != (Digest{}) || r.Timeout != timeout || seat.Renewed != noon || seat.Heard != [2]Heard{} {
		t.Errorf("restored %+v", seat)
	}
}

// checkGrants: a record that is not in order grants no node anything, and every
// operator only what nobody knows yet.
func checkGrants(t *testing.T, seat Seat, reason string) {
	t.Helper()
	epoch := seat.Record.Epoch
	for _, q := range []Request{
		ask(replaces(epoch)),
		ask(replaces(epoch), mode(Pair)),
		ask(replaces(epoch), from("b"), claim(20, 20)),
		takeover(replaces(epoch)),
	} {
		next, a := seat.Change(moment(noon), q)
		switch {
		case reason != "" && (next != seat || a.Reason != reason):
			t.Errorf("%+v: %+v", q, a)
		case reason == "" && q.From == seat.Record.Holder && !a.Granted:
			t.Errorf("the holder's %+v: %+v", q, a)
		}
	}
	highest := epoch
	for _, h := range seat.Heard {
		highest = max(highest, h.View.Epoch)
	}
	if highest > epoch {
		if _, a := seat.Change(moment(noon), ask(replaces(epoch), operator(highest))); a.Granted || !strings.Contains(a.Reason, "raises past what either node knows") {
			t.Errorf("an operator at an epoch that a node knows: %+v", a)
		}
	}
	next, a := seat.Change(moment(noon), ask(replaces(epoch), operator(highest+1)))
	if !a.Granted || next.Record.Epoch != highest+1 || next.Heard != [2]Heard{} {
		t.Errorf("an operator past all: %+v, %+v", a, next)
	}
}

// The answer to the last change is not repeated by a witness that has lost later
// ones: its record is not the service's any more.
func TestLostRecordsRepeat(t *testing.T) {
	request := ask()
	seat, _ := silent(kept(5, Pair), 0).Change(moment(noon), request)
	seat, _ = seat.Query(moment(noon), says("b", View{8, "b", Alone}))
	if next, a := seat.Change(moment(noon), request); a.Granted || next != seat {
		t.Errorf("repeated: %+v", a)
	}
}

// Both nodes may have lost more than the witness: the holder of what was found
// again is not waited for longer than any other.
func TestRestoredRecordIsTakenOver(t *testing.T) {
	seat := Seat{}
	seat, _ = seat.Query(moment(noon), says("a", View{5, "a", Pair}))
	seat, _ = seat.Query(moment(noon), says("b", View{5, "a", Pair}))
	early, due := noon+patience-1, noon+patience
	if _, a := seat.Change(moment(early), takeover(seen(moment(early)))); a.Granted || a.Wait != 1 {
		t.Errorf("early: %+v", a)
	}
	if _, a := seat.Change(moment(due), takeover(seen(moment(due)))); !a.Granted {
		t.Errorf("due: %+v", a)
	}
}
