// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"fmt"
	"strings"
	"testing"
)

// bothStopped is how both nodes are stopped and started again.
type bothStopped struct {
	verb    Verb
	first   int  // who is stopped first
	slow    int  // heartbeats that its application takes to stop
	between int  // heartbeats until the other is stopped
	away    bool // the witness
	again   int  // who is started first
	gap     int  // heartbeats until the other is started
}

// Both nodes are stopped in order, in either order and however quickly, and
// started again: the record names the last primary, who has every write, and
// nobody is needed to bring the service up (rule 24).
func TestBothStopAndStart(t *testing.T) {
	for _, verb := range []Verb{CommandStop, CommandStopAll, CommandQuit} {
		for _, away := range []bool{false, true} {
			for k := range 2 * 2 * 4 * 2 * 3 {
				b := bothStopped{verb: verb, away: away, first: k % 2, slow: k / 2 % 2 * 3,
					between: []int{0, 1, 2, 8}[k/4%4], again: k / 16 % 2, gap: []int{0, 1, 12}[k/32%3]}
				t.Run(fmt.Sprintf("%+v", b), b.test)
			}
		}
	}
}

func (b bothStopped) test(t *testing.T) {
	w := pairWorld(ByWitness)
	var trace strings.Builder
	w.trace = func(format string, args ...any) {
		if line := fmt.Sprintf(format, args...); !dull(line) {
			fmt.Fprintln(&trace, line)
		}
	}
	defer func() {
		if t.Failed() {
			t.Log(trace.String())
		}
	}()
	if b.away {
		w.run = 0
		w.ticks(5)
	}
	w.write(alpha, 0, false)
	last := b.stop(t, w)
	for i := range w.nodes {
		if w.nodes[i].m.Serving() {
			t.Errorf("%s still serves", places[i])
		}
	}
	if missing := w.truth.acked &^ w.nodes[last].engine.durable; missing != 0 {
		t.Errorf("%s was the last primary, and lacks %03b", places[last], missing)
	}
	if b.away {
		w.startWitness()
	} else if got := w.seat.Record.View(); got.Holder != places[last] {
		t.Errorf("%s was the last primary, and the record is %v", places[last], got)
	}
	for k, i := range [2]int{b.again, 1 - b.again} {
		if w.nodes[i].up {
			w.must(t, i, CommandStart)
		} else {
			w.start(i)
		}
		w.settle()
		if k == 0 {
			w.ticks(b.gap)
		}
	}
	w.ticks(40)
	if broken := w.broken + w.wrong(true); broken != "" {
		t.Error(broken)
	}
}

// stop stops both, and returns the last primary.
func (b bothStopped) stop(t *testing.T, w *world) (last int) {
	for k, i := range [2]int{b.first, 1 - b.first} {
		if last = w.primary(last); k == 0 || b.between > 0 { // else both at once
			w.write(last, uint8(k+1), false)
		}
		w.must(t, i, b.verb)
		if k == 0 && b.slow > 0 && i == last {
			w.delayed(func(e *event) bool { return e.kind == evDown })
			w.ticks(b.slow)
			w.choose(choice{do: arrive})
		}
		if k == 0 {
			w.ticks(b.between)
		}
	}
	for i := range w.nodes {
		if b.verb == CommandQuit {
			w.until(t, 12, w.nodes[i].m.Gone)
			w.crash(i, false)
		}
	}
	last = w.primary(last)
	w.ticks(12)
	return last
}

// primary is the node that serves; when none does, the one that did.
func (w *world) primary(last int) int {
	for i := range w.nodes {
		if w.nodes[i].up && w.nodes[i].engine.primary {
			return i
		}
	}
	return last
}

// A primary that holds a promise is stopped, and cannot hand over for the volumes
// have just lost each other. If it never went alone by the promise, the peer has
// everything: it is given the service as soon as the witness is back, and else not.
func TestRule24AHolderOfAPromiseStops(t *testing.T) {
	for name, alone := range map[string]bool{"never alone": false, "alone": true} {
		t.Run(name, func(t *testing.T) {
			w := pairWorld(ByWitness)
			w.run = 0
			w.until(t, 6, func() bool { return w.nodes[alpha].durable.Held != 0 })
			if alone {
				w.cut(alpha, beta)
				w.until(t, 6, func() bool { return w.nodes[alpha].engine.right == RightAlone })
				w.write(alpha, 0, true)
				w.choose(choice{do: stallData})
				w.mend(alpha, beta)
				w.ticks(2)
			}
			w.must(t, alpha, CommandStop)
			w.lose(alpha)
			w.lose(beta)
			w.after()
			w.ticks(3)
			if alone {
				w.choose(choice{do: freeData})
			}
			if s := w.nodes[alpha].m.State(); s != StateStop || w.nodes[alpha].durable.Held == 0 || w.serves(beta) {
				t.Fatalf("alpha is %v, and holds %d; beta serves: %t", s, w.nodes[alpha].durable.Held, w.serves(beta))
			}
			w.startWitness()
			w.ticks(12)
			if w.serves(beta) == alone || w.broken != "" {
				t.Errorf("beta serves: %t; %s", w.serves(beta), w.broken)
			}
		})
	}
}
