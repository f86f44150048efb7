// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"testing"
	"time"
)

// One test for each of the design's rules on who may serve.

// One right, one holder: if both reach the witness, the holder stays.
func TestRule16OneRightOneHolder(t *testing.T) {
	w := pairWorld(ByWitness)
	w.cut(alpha, beta)
	w.ticks(20)
	w.expect(t, StateAlone, StateWait)
	if got := w.seat.Record.View(); got.Holder != "alpha" || got.Mode != Alone {
		t.Errorf("the record is %v", got)
	}
	w.mend(alpha, beta)
	w.until(t, 12, func() bool { return w.wrong(true) == "" })
}

// The record names the other before it serves, and it needs no timeout.
func TestRule17Handover(t *testing.T) {
	w := pairWorld(ByWitness)
	epoch := w.seat.Record.Epoch
	w.must(t, alpha, CommandSwitch)
	w.settle()
	if got, want := w.seat.Record.View(), (View{epoch + 1, "beta", Pair}); got != want || !w.serves(beta) {
		t.Errorf("the record is %v, want %v; beta serves: %t", got, want, w.serves(beta))
	}
}

// Nothing is acknowledged without the own disk before the record names the peer.
func TestRule18TheRightFollowsTheDisk(t *testing.T) {
	w := pairWorld(ByWitness)
	w.lines[alpha][third] = slow
	w.failDisk(alpha)
	w.write(alpha, 0, false)
	if w.truth.acked != 0 {
		t.Error("acknowledged while the record names the node whose disk failed")
	}
	w.mend(alpha, third)
	w.until(t, 6, func() bool { return w.truth.acked != 0 })
	if got := w.seat.Record.View(); got.Holder != "beta" || got.Mode != Alone {
		t.Errorf("the record is %v", got)
	}
	w.crash(alpha, false)
	w.until(t, 12, func() bool { return w.serves(beta) })
}

// Each node lacks a volume that only the other has: the holder copies its own to
// the peer before it gives the service away, and serves meanwhile nobody.
func TestRule18AHolderThatCannotServeIsASource(t *testing.T) {
	for _, arbiter := range []Arbiter{ByFence, ByNobody} {
		set := pairWorld(arbiter).nodes[alpha].m.set
		m := NewMachine(set, 1, 0, NodeState{View: View{5, "alpha", Alone}, Known: 5, Wanted: WantStart})
		now := set.Heartbeat
		beat := Beat{Boot: 2, Sent: now, EchoBoot: 1, Echo: now, Known: 5, View: View{5, "alpha", Alone}, Wanted: WantStart}
		sources := func(actions []Action) (on, off bool) {
			for _, a := range actions {
				on, off = on || a.Do == DoSource && !a.Off, off || a.Do == DoSource && a.Off
			}
			return on, off
		}
		m.Heard(now, beat)
		if on, _ := sources(m.Saw(now, Data{Winner: Theirs, Owes: true})); !on || m.Epoch() != 5 || m.Serving() {
			t.Fatalf("%v: is a source: %t, in epoch %d, serving: %t", arbiter, on, m.Epoch(), m.Serving())
		}
		beat.Whole, beat.Sent = true, now+1
		if m.Heard(now+1, beat); m.Epoch() != 5 {
			t.Errorf("%v: given away before all was copied", arbiter)
		}
		if _, off := sources(m.Saw(now+1, Data{Winner: Theirs})); !off || m.Durable().View.Holder != "beta" {
			t.Errorf("%v: a source no longer: %t; the record names %s", arbiter, off, m.Durable().View.Holder)
		}
	}
}

// The witness goes, then the secondary: the primary goes on by its promise, and
// writes itself in when the witness is back.
func TestRule19LosingTheWitnessHarmsNobody(t *testing.T) {
	w := pairWorld(ByWitness)
	w.run = 0
	w.until(t, 6, func() bool { return w.nodes[alpha].durable.Held != 0 })
	w.crash(beta, false)
	w.until(t, 4, func() bool { return w.nodes[alpha].engine.right == RightAlone })
	w.write(alpha, 0, true)
	w.start(beta)
	w.ticks(10)
	if w.serves(beta) || !w.serves(alpha) {
		t.Error("a promise does not bind after a restart")
	}
	w.startWitness()
	w.until(t, 12, func() bool { return w.wrong(true) == "" && w.seat.Record.Mode == Pair })
	if n := w.nodes[beta].durable.Promise; n != 0 {
		t.Errorf("bound by %d for ever", n)
	}
}

// The lease ends before the other begins.
func TestRule20LeaseBeforeTakeover(t *testing.T) {
	w := pairWorld(ByWitness)
	w.isolate(alpha)
	last := 0
	for k := range 12 {
		w.ticks(1)
		if w.serves(alpha) {
			last = k
		}
		if w.serves(beta) {
			if k < last+2 {
				t.Errorf("alpha serves until heartbeat %d, and beta from %d", last, k)
			}
			return
		}
	}
	t.Error("nobody takes over")
}

// The same inputs have the same outcome, and a copy is a machine of its own.
func TestRule21Pure(t *testing.T) {
	w := pairWorld(ByWitness)
	c := w.clone()
	for range 3 {
		w.crash(alpha, false)
		w.ticks(9)
		w.start(alpha)
		w.ticks(9)
	}
	for range 3 {
		c.crash(alpha, false)
		c.ticks(9)
		c.start(alpha)
		c.ticks(9)
	}
	var canon canon
	if canon.of(w, budget{}) != canon.of(c, budget{}) {
		t.Error("two copies of one world come to different ends")
	}
}

// The primary loses power and is back at once; its peer kept what it did not
// have on its disk.
func TestRule22OnlyTheNewestServes(t *testing.T) {
	w := pairWorld(ByWitness)
	w.write(alpha, 0, false)
	w.crash(alpha, true)
	if w.nodes[alpha].engine.applied != 0 {
		t.Fatal("nothing was lost")
	}
	w.start(alpha)
	w.until(t, 20, func() bool { return w.wrong(true) == "" })
	if !w.serves(alpha) || w.nodes[alpha].engine.applied != 1 {
		t.Error("the survivor's blocks do not win")
	}
}

// What a restarted holder may lack is copied to it for as long as a takeover would
// take, and not at all where it could not be reached: then the other one serves.
func TestRule22ALongCopyIsNotWaitedFor(t *testing.T) {
	for name, detached := range map[string]bool{"takes long": false, "cannot be reached": true} {
		t.Run(name, func(t *testing.T) {
			set := pairWorld(ByNobody).nodes[alpha].m.set
			view := View{5, "alpha", Pair}
			m := NewMachine(set, 1, 0, NodeState{View: view, Known: 5, Wanted: WantStart})
			m.Tick(0)
			holder := func(now time.Duration) string {
				m.Heard(now, Beat{
					Boot: 2, Sent: now, EchoBoot: 1, Echo: now, View: view, Known: 5, InStep: 5, Whole: true, Kept: true, Wanted: WantStart,
				})
				m.Saw(now, Data{Winner: Theirs, Detached: detached})
				return m.Durable().View.Holder
			}
			now := set.Heartbeat
			for ; !detached && now < set.patience(); now += set.Heartbeat {
				if got := holder(now); got != "alpha" {
					t.Fatalf("after %v the record names %s", now, got)
				}
			}
			if got := holder(now); got != "beta" || m.Serving() {
				t.Errorf("after %v the record names %s, serving: %t", now, got, m.Serving())
			}
		})
	}
}

// With a fence nobody has a lease, and the peer that took over would not know of a
// right to be alone that it has not heard of: so a restarted holder begins again in
// pair, and is alone when the peer is off.
func TestRule22UnderAFenceItBeginsInPair(t *testing.T) {
	w := pairWorld(ByFence)
	w.write(alpha, 0, false)
	w.crash(alpha, false)
	w.start(alpha)
	for n := 0; !w.nodes[alpha].engine.primary; n++ {
		if w.step(); n > 1000 {
			t.Fatal("the holder does not serve again")
		}
	}
	w.cut(alpha, beta)
	w.drop(func(e *event) bool { return e.kind == evBeat })
	next := uint8(1)
	for range 60 {
		w.ticks(1)
		for i := range w.nodes {
			if w.serves(i) && next < 4 {
				w.write(i, next, true)
				next++
			}
		}
	}
	if w.broken != "" {
		t.Error(w.broken)
	}
	if !w.serves(alpha) && !w.serves(beta) {
		t.Error("nobody serves")
	}
}

// A failing application is no reason to stop the only copy.
func TestRule23TheLastGoodCopy(t *testing.T) {
	w := pairWorld(ByWitness)
	w.crash(beta, true)
	w.ticks(8)
	w.did(alpha, w.nodes[alpha].m.CheckFailed(w.local(alpha), "it does not answer"), -1)
	w.ticks(20)
	if !w.serves(alpha) {
		t.Error("the last good copy is stopped")
	}
	w.write(alpha, 0, true)
	if w.truth.flushed != 1 {
		t.Error("a write is not taken")
	}
}

// Neither stop costs a timeout.
func TestRule24StoppingIsClean(t *testing.T) {
	for i := range 2 {
		w := pairWorld(ByWitness)
		w.write(alpha, 0, false)
		w.must(t, i, CommandStop)
		if took := w.until(t, 3, func() bool { return w.nodes[1-i].engine.primary && w.serves(1-i) }); took > 1 {
			t.Errorf("%s stops, and %s serves after %d heartbeats", places[i], places[1-i], took)
		}
		w.until(t, 2, func() bool { return w.nodes[1-i].engine.right == RightAlone })
		w.crash(i, true)
		if i == alpha && w.nodes[i].engine.applied != 1 {
			t.Error("what was acknowledged was not flushed")
		}
	}
}
