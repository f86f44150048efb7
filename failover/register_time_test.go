// SPDX-License-Identifier: Apache-2.0

package failover_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	. "github.com/twinbd/twinbd/failover"
	"github.com/twinbd/twinbd/failover/failovertest"
)

func TestRegisterVoidsWhatAnotherRunSaw(t *testing.T) {
	disk := failovertest.NewDisk(1)
	r := openRegister(t, disk)
	q := first
	q.Seen = read(t, r).Stamp
	made, err := r.Change(q)
	if err != nil || !made.Granted {
		t.Fatal(made, err)
	}
	late := ask(replaces(1), mode(Pair), token(2), seen(made.Stamp))

	disk.Restart()
	r = openRegister(t, disk)
	again, err := r.Change(q)
	if err != nil || !again.Granted || again.Record != made.Record {
		t.Errorf("the very request after a restart: %+v, %v", again, err)
	}
	void, err := r.Change(late)
	if err != nil || !void.Void || void.Granted || void.Record != made.Record || !strings.Contains(void.Reason, "ask anew") {
		t.Errorf("a request of unknown age: %+v, %v", void, err)
	}
	late.Seen = void.Stamp
	if a, err := r.Change(late); err != nil || !a.Granted {
		t.Errorf("asked anew: %+v, %v", a, err)
	}
}

// Stamps are the clock's, and a run has one name that no other has.
func TestRegisterStamps(t *testing.T) {
	clock := &handClock{}
	one := openRegisterAt(t, failovertest.NewDisk(1), clock)
	two := openRegisterAt(t, failovertest.NewDisk(1), clock)
	first := read(t, one).Stamp
	clock.pass(time.Second)
	second := read(t, one).Stamp
	if first.At != noon || second.At != noon+time.Second || first.Run != second.Run || first.Run == 0 {
		t.Errorf("%+v and then %+v", first, second)
	}
	if other := read(t, two).Stamp; other.Run == first.Run {
		t.Errorf("two runs are called %d", other.Run)
	}
	zero, err := OpenRegister(failovertest.NewDisk(1), RegisterConfig{Log: quiet, Random: strings.NewReader("\x00\x00\x00\x00\x00\x00\x00\x00")})
	if err != nil || read(t, zero).Stamp.Run == 0 {
		t.Errorf("a run without a name: %v", err)
	}
}

// The system's clock runs, and it does not go back.
func TestRegisterSystemClock(t *testing.T) {
	r := openRegister(t, failovertest.NewDisk(1))
	last := read(t, r).Stamp
	if last.At < 0 || last.At > time.Minute {
		t.Fatalf("a run begins at %v", last.At)
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		next := read(t, r).Stamp
		switch {
		case next.At < last.At:
			t.Fatalf("%v after %v", next.At, last.At)
		case next.At > last.At:
			return
		case time.Now().After(deadline):
			t.Fatal("the clock stands still")
		}
	}
}

// pairOf has a hold service s in a pair, at epoch 2.
func pairOf(t *testing.T, r *Register) {
	t.Helper()
	change(t, r, first)
	if a := change(t, r, ask(replaces(1), mode(Pair))); !a.Granted {
		t.Fatalf("pair: %+v", a)
	}
}

// A restarted witness knows nothing of what the run before told the holder last.
func TestRegisterRestartWaits(t *testing.T) {
	disk, clock := failovertest.NewDisk(1), &handClock{}
	pairOf(t, openRegisterAt(t, disk, clock))
	clock.pass(time.Hour)
	disk.Restart()
	r := openRegisterAt(t, disk, clock)
	clock.pass(patience - 1)
	if a := change(t, r, takeover(replaces(2))); a.Granted || a.Wait != 1 {
		t.Fatalf("too early: %+v", a)
	}
	clock.pass(1)
	if a := change(t, r, takeover(replaces(2))); !a.Granted {
		t.Errorf("after the wait: %+v", a)
	}
}

// A longer lease than the record was made with is durable before it begins.
func TestRegisterRestartWaitsForLongerLease(t *testing.T) {
	disk, clock := failovertest.NewDisk(1), &handClock{}
	r := openRegisterAt(t, disk, clock)
	pairOf(t, r)
	long := Query{Cluster: "c", Service: "s", From: "a", Serving: true, Seen: read(t, r).Stamp, Timeout: 10 * time.Second}
	disk.FailSyncAt(1)
	if a, err := r.Read(long); !errors.Is(err, ErrUnusable) {
		t.Fatalf("renewed with a lease that is not durable: %+v, %v", a, err)
	}
	disk.PowerCycle()
	r = openRegisterAt(t, disk, clock)
	long.Seen = read(t, r).Stamp
	if a := tell(t, r, long); !a.Renewed {
		t.Fatalf("%+v", a)
	}
	disk.PowerCycle()
	r = openRegisterAt(t, disk, clock)
	clock.pass(patience)
	if a := change(t, r, takeover(replaces(2))); a.Granted || a.Wait != 11*time.Second-patience {
		t.Errorf("%+v", a)
	}
}

// F15: what the nodes know comes back, durably and first.
func TestRegisterRestores(t *testing.T) {
	disk := failovertest.NewDisk(1)
	r := openRegister(t, disk)
	sixB := View{6, "b", Alone}
	if a := tell(t, r, says("b", sixB)); !a.Record.Empty() || r.Len() != 0 {
		t.Fatalf("on one word: %+v", a)
	}
	now := tell(t, r, saysOf("t", "b", View{})).Stamp
	if a, err := r.Change(takeover(replaces(0), seen(now))); err != nil || a.Granted || !strings.Contains(a.Reason, "b knows epoch 6, and the witness has no record") {
		t.Fatalf("on one word: %+v, %v", a, err)
	}
	restored := tell(t, r, says("a", View{}))
	if restored.Record.View() != sixB || r.Len() != 1 {
		t.Fatalf("%+v", restored)
	}
	disk.PowerCycle()
	if a := read(t, openRegister(t, disk)); a.Record != restored.Record {
		t.Errorf("told %+v and has %+v after a power cut", restored.Record, a.Record)
	}
}
