// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// What the machines do in a world without surprises, and with one at a time.

func (w *world) expect(t *testing.T, a, b State) {
	t.Helper()
	if w.broken != "" {
		t.Fatal(w.broken)
	}
	if x, y := w.state(alpha), w.state(beta); x != a || y != b {
		t.Fatalf("alpha is %s and beta %s, want %s and %s: %s", x, y, a, b, w.stuck("record"))
	}
}

// state is what a node shows; "" for one that is down.
func (w *world) state(i int) State {
	if !w.nodes[i].up {
		return ""
	}
	return w.nodes[i].m.State()
}

func (w *world) must(t *testing.T, i int, v Verb) {
	t.Helper()
	if err := w.command(i, v); err != nil {
		t.Fatalf("%s at %s: %v", v, places[i], err)
	}
}

// until lets time pass until it is so, and returns how many heartbeats that took.
func (w *world) until(t *testing.T, most int, is func() bool) int {
	t.Helper()
	for n := range most + 1 {
		if is() {
			return n
		}
		w.ticks(1)
	}
	t.Fatalf("not within %d heartbeats: %s%s", most, w.broken, w.stuck(""))
	return 0
}

func (w *world) cut(x, y int) { w.lines[x][y], w.lines[y][x] = cut, cut }

func (w *world) mend(x, y int) { w.lines[x][y], w.lines[y][x] = open, open }

// write has a client write where the node serves, and flush.
func (w *world) write(i int, k uint8, flush bool) {
	do := write
	if flush {
		do = writeFlushed
	}
	w.choose(choice{do, uint8(i), k})
	w.settle()
}

func TestFirstPrim(t *testing.T) {
	w := newWorld(ByWitness)
	w.start(alpha)
	w.ticks(3)
	if !strings.Contains(w.nodes[alpha].m.Reason(), "twinbd prim db") {
		t.Errorf("no remedy: %s", w.nodes[alpha].m.Reason())
	}
	w.must(t, alpha, CommandPrim)
	w.until(t, 6, func() bool { return w.state(alpha) == StateAlone && w.serves(alpha) })
	w.start(beta)
	w.until(t, 8, func() bool { return w.state(alpha) == StatePrim && w.state(beta) == StateSecond })
	if got := w.seat.Record.Mode; got != Pair {
		t.Errorf("the record says %v", got)
	}
	if err := w.command(beta, CommandPrim); err == nil || !strings.Contains(err.Error(), "alpha serves db") {
		t.Errorf("prim at the secondary: %v", err)
	}
	w.expect(t, StatePrim, StateSecond)
}

func TestSecondaryDies(t *testing.T) {
	w := pairWorld(ByWitness)
	w.crash(beta, true)
	w.until(t, 5, func() bool { return w.state(alpha) == StateAlone && w.nodes[alpha].engine.right == RightAlone })
	w.write(alpha, 0, false)
	if w.truth.acked == 0 {
		t.Error("alone, and a write is not acknowledged")
	}
	w.start(beta)
	w.until(t, 10, func() bool { return w.state(alpha) == StatePrim && w.state(beta) == StateSecond })
	if w.nodes[beta].engine.applied != w.nodes[alpha].engine.applied {
		t.Error("the disks differ")
	}
}

// A takeover takes the timeout, the margin and a few heartbeats.
func TestPrimaryDies(t *testing.T) {
	w := pairWorld(ByWitness)
	w.write(alpha, 0, false)
	w.crash(alpha, true)
	took := w.until(t, 4+3, func() bool { return w.serves(beta) })
	if took < 4 {
		t.Errorf("beta serves after %d heartbeats, when alpha's lease may last yet", took)
	}
	if w.nodes[beta].engine.applied != 1 {
		t.Error("the write is gone")
	}
	w.start(alpha)
	w.until(t, 12, func() bool { return w.state(beta) == StatePrim && w.state(alpha) == StateSecond })
}

// What the witness says while the other's lease lasts is no refusal of an
// operator's word: it is asked again.
func TestPrimDuringTakeover(t *testing.T) {
	w := pairWorld(ByWitness)
	w.crash(alpha, true)
	w.ticks(3)
	w.must(t, beta, CommandPrim)
	asked := false
	w.until(t, 8, func() bool {
		asked = asked || w.nodes[beta].m.ask.retry > w.local(beta)
		if why := w.nodes[beta].m.Problem(); why != "" {
			t.Errorf("refused: %s", why)
		}
		return w.serves(beta)
	})
	if !asked {
		t.Error("it was never told to wait, so this shows nothing")
	}
}

func TestSwitch(t *testing.T) {
	w := pairWorld(ByWitness)
	for _, from := range []int{alpha, beta, alpha} {
		w.must(t, from, CommandSwitch)
		w.settle() // no timeout is waited for
		if !w.serves(1-from) || w.serves(from) {
			t.Fatal(w.stuck("switch from %s", places[from]))
		}
		w.until(t, 3, func() bool { return w.state(1-from) == StatePrim && w.state(from) == StateSecond })
	}
}

func TestSwitchRefused(t *testing.T) {
	w := pairWorld(ByWitness)
	if err := w.command(beta, CommandSwitch); err == nil {
		t.Error("a secondary switches")
	}
	w.crash(beta, false)
	w.ticks(4)
	var r *Refused
	if err := w.command(alpha, CommandSwitch); !errors.As(err, &r) || r.Hint == "" {
		t.Errorf("switch to a dead node: %v", err)
	}
}

func TestStopAndStart(t *testing.T) {
	for _, test := range []struct {
		name string
		stop int
		want [2]State
	}{
		{"the secondary", beta, [2]State{StateAlone, StateStop}},
		{"the primary", alpha, [2]State{StateStop, StateAlone}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := pairWorld(ByWitness)
			w.must(t, test.stop, CommandStop)
			w.until(t, 3, func() bool { return w.serves(1 - test.stop) })
			w.until(t, 2, func() bool { return w.state(alpha) == test.want[0] && w.state(beta) == test.want[1] })
			w.write(1-test.stop, 0, false)
			w.must(t, test.stop, CommandStart)
			w.until(t, 12, func() bool { return w.state(1-test.stop) == StatePrim && w.state(test.stop) == StateSecond })
		})
	}
}

func TestStopAll(t *testing.T) {
	w := pairWorld(ByWitness)
	w.must(t, alpha, CommandStopAll)
	w.must(t, beta, CommandStopAll)
	w.ticks(30)
	w.expect(t, StateStop, StateStop)
	if w.seat.Record.Mode != Pair || w.serves(beta) {
		t.Errorf("the record is %v", w.seat.Record.View())
	}
	w.must(t, beta, CommandStart)
	w.must(t, alpha, CommandStart)
	w.until(t, 20, func() bool { return w.wrong(true) == "" })
}

func TestQuit(t *testing.T) {
	for i := range 2 {
		w := pairWorld(ByWitness)
		w.must(t, i, CommandQuit)
		w.until(t, 4, func() bool { return w.nodes[i].m.Gone() })
		if w.nodes[i].durable.Wanted != WantStart {
			t.Error("to quit is not to stop")
		}
		w.crash(i, false)
		w.until(t, 3, func() bool { return w.serves(1 - i) })
		w.start(i)
		w.until(t, 12, func() bool { return w.state(1-i) == StatePrim && w.state(i) == StateSecond })
	}
}

func TestMaintenance(t *testing.T) {
	w := pairWorld(ByWitness)
	w.must(t, beta, CommandRest)
	w.crash(alpha, false)
	w.ticks(20)
	w.expect(t, "", StateWait)
	w.must(t, beta, CommandAttention)
	w.until(t, 4, func() bool { return w.serves(beta) })
}

func TestFailback(t *testing.T) {
	w := pairWorld(ByWitness)
	for i := range w.nodes {
		w.nodes[i].m.set.Prefer, w.nodes[i].m.set.Failback, w.nodes[i].m.set.HoldOff = "alpha", true, 10*beatEvery
	}
	w.must(t, alpha, CommandSwitch)
	w.until(t, 3, func() bool { return w.state(beta) == StatePrim })
	took := w.until(t, 20, func() bool { return w.state(alpha) == StatePrim })
	if took < 8 {
		t.Errorf("it returns after %d heartbeats already", took)
	}
	w.ticks(40)
	w.expect(t, StatePrim, StateSecond)
}

// The application fails on one node: one switch. It fails on both: it stays.
func TestApplicationFails(t *testing.T) {
	w := pairWorld(ByWitness)
	w.did(alpha, w.nodes[alpha].m.CheckFailed(w.local(alpha), "the check says no"), -1)
	w.until(t, 4, func() bool { return w.state(beta) == StatePrim && w.state(alpha) == StateSecond })
	w.did(beta, w.nodes[beta].m.CheckFailed(w.local(beta), "the check says no"), -1)
	w.ticks(40)
	w.expect(t, StateSecond, StatePrim)
	if w.nodes[beta].m.Colour() != NotReady || !strings.Contains(w.nodes[beta].m.Reason(), "the check says no") {
		t.Errorf("%s: %s", w.nodes[beta].m.Colour(), w.nodes[beta].m.Reason())
	}
}

func TestStartScriptFails(t *testing.T) {
	w := pairWorld(ByWitness)
	w.nodes[alpha].fails, w.nodes[beta].fails = true, true
	w.must(t, alpha, CommandSwitch)
	w.ticks(40)
	w.expect(t, StatePrim, StateSecond) // back where it was not known to fail, and no further
	if w.nodes[beta].ups+w.nodes[alpha].ups != 3 {
		t.Errorf("it ping-pongs: %d starts", w.nodes[beta].ups+w.nodes[alpha].ups)
	}
}

func TestEmptyWitness(t *testing.T) {
	w := pairWorld(ByWitness)
	w.run, w.seat = 0, Seat{} // its disk was replaced
	w.ticks(1)
	w.startWitness()
	w.until(t, 6, func() bool { return w.seat.Record.Epoch != 0 })
	w.until(t, 12, func() bool { return w.wrong(true) == "" && w.serves(alpha) })
}

// Restored while the secondary is dead: what the witness says is below what the
// primary knows, and nobody is granted anything by it.
func TestStaleWitness(t *testing.T) {
	w := pairWorld(ByWitness)
	old := w.seat.Record
	w.crash(beta, false)
	w.ticks(8)
	w.write(alpha, 0, true)
	w.run = 0
	w.seat.Record = old
	w.crash(alpha, false)
	w.startWitness()
	w.ticks(1)
	w.start(alpha)
	w.ticks(30)
	if w.serves(alpha) {
		t.Error("one node's word is taken for the record")
	}
	w.start(beta)
	w.until(t, 40, func() bool { return w.wrong(true) == "" })
	if w.nodes[beta].engine.applied != 1 {
		t.Error("the write is gone")
	}
}

func TestArbiters(t *testing.T) {
	for _, arbiter := range []Arbiter{ByPing, ByFence, ByNobody} {
		t.Run(arbiter.String(), func(t *testing.T) {
			w := pairWorld(arbiter)
			w.crash(beta, false)
			w.until(t, 8, func() bool { return w.nodes[alpha].engine.right == RightAlone })
			w.write(alpha, 0, true)
			w.start(beta)
			w.until(t, 20, func() bool { return w.state(alpha) == StatePrim && w.state(beta) == StateSecond })
			w.crash(alpha, false)
			w.ticks(20)
			if got := w.serves(beta); got != (arbiter != ByNobody) {
				t.Errorf("beta serves: %t", got)
			}
			w.start(alpha)
			w.until(t, 30, func() bool { return w.wrong(true) == "" })
		})
	}
}

// Both reach the router, and not each other: the address of the one that serves
// is seen, so the other does not take over. It is a split only when that fails.
func TestPingPartition(t *testing.T) {
	w := pairWorld(ByPing)
	w.isolate(alpha)
	w.until(t, 10, func() bool { return w.serves(beta) })
	if w.serves(alpha) {
		t.Error("both serve")
	}
	for x := range places {
		for y := range places {
			w.lines[x][y] = open
		}
	}
	w.until(t, 30, func() bool { return w.wrong(true) == "" })
}

func TestMachineReason(t *testing.T) {
	w := pairWorld(ByWitness)
	if c := w.nodes[alpha].m.Colour(); c != Ready {
		t.Errorf("PRIM is %s", c)
	}
	if c := w.nodes[beta].m.Colour(); c != Ready {
		t.Errorf("SECOND is %s", c)
	}
	w.cut(alpha, beta)
	w.cut(alpha, third)
	w.ticks(3)
	if r := w.nodes[alpha].m.Reason(); !strings.Contains(r, "clients wait") {
		t.Errorf("frozen: %s", r)
	}
	if time.Duration(0) == w.now {
		t.Error("no time")
	}
}
