// SPDX-License-Identifier: Apache-2.0

package failover_test

import (
	"errors"
	"testing"

	. "github.com/twinbd/twinbd/failover"
	"github.com/twinbd/twinbd/failover/failovertest"
)

// life is what nodes and operator ask for, one after the other.
var life = []Request{
	ask(replaces(0), operator(0)),
	ask(replaces(1), mode(Pair)),
	takeover(replaces(2)),
	takeover(replaces(3), mode(Pair)),
	ask(replaces(4), from("b"), mode(Pair)),
	takeover(replaces(5), claim(20, 21)),
	ask(replaces(21), operator(40)),
}

// witnessed is what the nodes know of a register whose disk misbehaves.
type witnessed struct {
	t     *testing.T
	disk  *failovertest.Disk
	clock *handClock
	told  Record   // the last that was told to anybody
	asked *Request // the request without an answer, if any
}

func newWitnessed(t *testing.T, seed uint64) *witnessed {
	return &witnessed{t: t, disk: failovertest.NewDisk(seed), clock: &handClock{}}
}

// live opens the register and asks on from where the record stands, until
// something fails. The holder is silent before each request for long enough.
func (w *witnessed) live() {
	r, err := OpenRegister(w.disk, RegisterConfig{Log: quiet, Clock: w.clock.now})
	if err != nil {
		return
	}
	defer r.Close()
	for {
		w.clock.pass(patience)
		a, err := r.Read(says("a", View{}))
		if err != nil {
			return
		}
		w.hear(a.Record)
		q, ok := nextOf(a.Record)
		if !ok {
			return
		}
		q.Token, q.Seen = NewToken(), a.Stamp
		w.asked = &q
		answer, err := r.Change(q)
		if err != nil {
			if !errors.Is(err, ErrUnusable) {
				w.t.Fatalf("change: %v", err)
			}
			if a, err := r.Read(says("a", View{})); err == nil {
				w.t.Fatalf("after a failed write the register still tells %v", a.Record)
			}
			return
		}
		if !answer.Granted {
			w.t.Fatalf("refused: %s", answer.Reason)
		}
		w.hear(answer.Record)
	}
}

func nextOf(r Record) (Request, bool) {
	for _, q := range life {
		if q.Replaces == r.Epoch {
			return q, true
		}
	}
	return Request{}, false
}

// hear is the check: a record that was told is never taken back, and what is
// newer is what was asked.
func (w *witnessed) hear(r Record) {
	w.t.Helper()
	switch {
	case r == w.told:
	case w.asked != nil && r.Token == w.asked.Token && w.asked.Replaces == w.told.Epoch:
		w.told, w.asked = r, nil
	default:
		w.t.Fatalf("told %v, asked %+v, and now the record is %v", w.told, w.asked, r)
	}
}

// after restarts the register on a disk that works, and looks.
func (w *witnessed) after() {
	w.t.Helper()
	r := openRegisterAt(w.t, w.disk, w.clock)
	now := read(w.t, r)
	w.hear(now.Record)
	if w.asked == nil {
		return
	}
	a, err := r.Change(*w.asked)
	if err != nil || a.Granted || a.Record != w.told {
		w.t.Fatalf("a request of an earlier run that was not carried out: %+v, %v", a, err)
	}
}

// Power goes at every step of the register's life, and again while it recovers.
func TestRegisterPowerCutAnywhere(t *testing.T) {
	total := callsOfALife(t)
	for cut := 1; cut <= total; cut++ {
		for seed := range uint64(8) {
			w := newWitnessed(t, seed)
			w.disk.CutPowerAt(cut)
			w.live()
			w.disk.PowerCycle()
			w.disk.CutPowerAt(int(1 + seed*3)) // within recovery, or a little later
			w.live()
			w.disk.PowerCycle()
			w.after()
			w.disk.PowerCycle()
			w.after()
			if t.Failed() {
				t.Fatalf("cut at call %d of %d, seed %d", cut, total, seed)
			}
		}
	}
}

// The process is killed at every step: what its successor tells must survive the
// power cut that follows, though its predecessor never flushed it.
func TestRegisterKilledThenPowerCut(t *testing.T) {
	total := callsOfALife(t)
	for cut := 1; cut <= total; cut++ {
		for seed := range uint64(8) {
			w := newWitnessed(t, seed)
			w.disk.CutPowerAt(cut)
			w.live()
			w.disk.Restart()
			w.after()
			w.disk.PowerCycle()
			w.after()
			if t.Failed() {
				t.Fatalf("killed at call %d of %d, seed %d", cut, total, seed)
			}
		}
	}
}

// A flush fails at every step: the register falls silent, and after a restart
// what it tells is durable, though the failed flush left it in memory only.
func TestRegisterFailedFlush(t *testing.T) {
	for nth := 1; ; nth++ {
		w := newWitnessed(t, uint64(nth))
		w.disk.FailSyncAt(nth)
		w.live()
		if w.told.Epoch == 40 {
			break // there were fewer flushes than that
		}
		w.disk.Restart()
		w.after()
		w.disk.PowerCycle()
		w.after()
		if t.Failed() {
			t.Fatalf("flush %d", nth)
		}
	}
}

func callsOfALife(t *testing.T) int {
	w := newWitnessed(t, 0)
	w.disk.CutPowerAt(0)
	w.live()
	if w.told.Epoch != 40 || w.asked != nil {
		t.Fatalf("an undisturbed life ends at %v", w.told)
	}
	return w.disk.Calls()
}

// Power goes at every step of a restoration: what a node was told of the record
// that came back, it is told again; else it comes back once more.
func TestRegisterPowerCutWhileRestoring(t *testing.T) {
	known := View{6, "b", Alone}
	for cut := 1; ; cut++ {
		for seed := range uint64(8) {
			disk := failovertest.NewDisk(seed)
			disk.CutPowerAt(cut)
			told := Record{}
			if r, err := OpenRegister(disk, RegisterConfig{Log: quiet}); err == nil {
				r.Read(says("b", known))
				if a, err := r.Read(says("a", View{5, "a", Pair})); err == nil {
					told = a.Record
				}
			}
			if calls := disk.Calls(); calls < cut {
				if told.View() != known {
					t.Fatalf("undisturbed, %d calls end at %v", calls, told)
				}
				return
			}
			disk.PowerCycle()
			r := openRegister(t, disk)
			found := tell(t, r, says("a", View{5, "a", Pair})).Record
			if !told.Empty() && found != told {
				t.Fatalf("cut %d, seed %d: told %v and found %v", cut, seed, told, found)
			}
			if again := tell(t, r, says("b", known)).Record; again.View() != known {
				t.Fatalf("cut %d, seed %d: found %v and then %v", cut, seed, found, again)
			}
		}
	}
}
