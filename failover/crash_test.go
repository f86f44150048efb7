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
	ask(replaces(2), from("b"), holder("b")),
	ask(replaces(3), from("b"), holder("b"), mode(Pair)),
	ask(replaces(4), from("b"), mode(Pair)),
	ask(replaces(5), operator(40)),
}

// witnessed is what the nodes know of a register whose disk misbehaves.
type witnessed struct {
	t     *testing.T
	disk  *failovertest.Disk
	told  Record   // the last that was told to anybody
	asked *Request // the request without an answer, if any
}

// live opens the register and asks on from where the record stands, until
// something fails.
func (w *witnessed) live() {
	r, err := OpenRegister(w.disk, RegisterConfig{Log: quiet})
	if err != nil {
		return
	}
	defer r.Close()
	for {
		a, err := r.Read(Query{Cluster: "c", Service: "s", From: "a"})
		if err != nil {
			return
		}
		w.hear(a.Record)
		q, ok := nextOf(a.Record)
		if !ok {
			return
		}
		q.Token, q.Seen = NewToken(), a.Serial
		w.asked = &q
		answer, err := r.Change(q)
		if err != nil {
			if !errors.Is(err, ErrUnusable) {
				w.t.Fatalf("change: %v", err)
			}
			if a, err := r.Read(Query{Cluster: "c", Service: "s", From: "a"}); err == nil {
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
	r := openRegister(w.t, w.disk)
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
			w := &witnessed{t: t, disk: failovertest.NewDisk(seed)}
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
			w := &witnessed{t: t, disk: failovertest.NewDisk(seed)}
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
		w := &witnessed{t: t, disk: failovertest.NewDisk(uint64(nth))}
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
	w := &witnessed{t: t, disk: failovertest.NewDisk(0)}
	w.disk.CutPowerAt(0)
	w.live()
	if w.told.Epoch != 40 || w.asked != nil {
		t.Fatalf("an undisturbed life ends at %v", w.told)
	}
	return w.disk.Calls()
}
