// SPDX-License-Identifier: Apache-2.0

package failover_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/twinbd/twinbd/failover"
	"github.com/twinbd/twinbd/failover/failovertest"
)

func TestRegisterRefusesNamesThatArePaths(t *testing.T) {
	disk := failovertest.NewDisk(1)
	r := openRegister(t, disk)
	for _, q := range []Request{
		ask(func(q *Request) { q.Service = "../x" }),
		ask(func(q *Request) { q.Cluster = "a/b" }),
		ask(func(q *Request) { q.Service = "" }),
		ask(holder("")),
		ask(from("A")),
	} {
		if a, err := r.Change(q); !errors.Is(err, ErrBadRequest) {
			t.Errorf("%+v: %+v, %v", q, a, err)
		}
		if q.Holder == "a" {
			if a, err := r.Read(Query{Cluster: q.Cluster, Service: q.Service, From: q.From, Timeout: timeout}); !errors.Is(err, ErrBadRequest) {
				t.Errorf("%+v: read %+v, %v", q, a, err)
			}
		}
	}
	if names, _ := disk.Names(); len(names) != 0 {
		t.Errorf("files were made: %q", names)
	}
}

func TestRegisterRefusesNonsense(t *testing.T) {
	r := openRegister(t, failovertest.NewDisk(1))
	for _, c := range []struct {
		request Request
		want    string
	}{
		{ask(token(0)), "has no token"},
		{ask(mode(0)), "none is not a mode"},
		{ask(mode(7)), "mode 7 is not a mode"},
		{ask(holder("../b")), `"../b" cannot name a holder`},
		{ask(within(0)), "0s cannot be a timeout"},
		{ask(within(-1)), "-1ns cannot be a timeout"},
		{ask(within(MaxTimeout + 1)), "cannot be a timeout; expected up to 1h0m0s"},
		{ask(claim(8, 7)), "a claim by promise 8 raises to 7"},
		{ask(claim(8, 0)), "a claim by promise 8 raises to 0"},
		{ask(claim(8, 8), mode(Pair)), "(pair, operator false)"},
		{ask(claim(8, 8), operator(8)), "(alone, operator true)"},
	} {
		if a, err := r.Change(c.request); !errors.Is(err, ErrBadRequest) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %+v, %v, want %s", c.request, a, err, c.want)
		}
	}
	for _, c := range []struct {
		knows   View
		timeout time.Duration
		want    string
	}{
		{View{}, 0, "cannot be a timeout"},
		{View{Holder: "a"}, timeout, "a view without an epoch"},
		{View{MaxEpoch + 1, "a", Pair}, timeout, "is above"},
		{View{5, "a", 0}, timeout, "none is not a mode"},
		{View{5, "", Pair}, timeout, "cannot name a holder"},
	} {
		q := says("a", c.knows)
		q.Timeout = c.timeout
		if a, err := r.Read(q); !errors.Is(err, ErrBadRequest) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %+v, %v, want %s", q, a, err, c.want)
		}
	}
}

// about is the query, or the request, for another service.
func about(service string) func(*Request) { return func(q *Request) { q.Service = service } }

func saysOf(service, node string, v View) Query {
	q := says(node, v)
	q.Service = service
	return q
}

func TestRegisterIsBounded(t *testing.T) {
	r, err := OpenRegister(failovertest.NewDisk(1), RegisterConfig{Log: quiet, MaxServices: 2})
	if err != nil {
		t.Fatal(err)
	}
	prim := func(service string) error {
		_, err := r.Change(ask(replaces(0), operator(0), about(service), seen(read(t, r).Stamp)))
		return err
	}
	// Asking keeps nothing: neither a read nor a refused change takes room.
	for _, service := range []string{"x1", "x2", "x3"} {
		if a, err := r.Change(ask(replaces(0), about(service), seen(read(t, r).Stamp))); err != nil || a.Granted {
			t.Fatalf("%+v, %v", a, err)
		}
	}
	if err := errors.Join(prim("s1"), prim("s2")); err != nil || r.Len() != 2 {
		t.Fatalf("%d services, %v", r.Len(), err)
	}
	if err := prim("s3"); !errors.Is(err, ErrFull) {
		t.Errorf("third of two: %v", err)
	}
	// A full one does not take back what a node knows either.
	tell(t, r, saysOf("s4", "a", View{5, "a", Pair}))
	if a, err := r.Read(saysOf("s4", "b", View{})); !errors.Is(err, ErrFull) || r.Len() != 2 {
		t.Errorf("restored beyond the limit: %+v, %v", a, err)
	}
}

// Of the services without a record, the one met first is forgotten when there
// are too many: then both nodes have to speak again.
func TestRegisterForgetsWhoItMetFirst(t *testing.T) {
	r, err := OpenRegister(failovertest.NewDisk(1), RegisterConfig{Log: quiet, MaxServices: 2})
	if err != nil {
		t.Fatal(err)
	}
	known := View{5, "a", Pair}
	for _, service := range []string{"s1", "s2", "s3"} {
		tell(t, r, saysOf(service, "a", known))
	}
	for _, service := range []string{"s3", "s2"} {
		if a := tell(t, r, saysOf(service, "b", View{})); a.Record.View() != known {
			t.Errorf("%s: %+v", service, a)
		}
	}
	if a := tell(t, r, saysOf("s1", "b", View{})); !a.Record.Empty() {
		t.Errorf("s1 was remembered: %+v", a)
	}
}

// A service is forgotten while a request for it is judged, and asked about anew:
// it keeps one record, that of the entry that is known.
func TestRegisterForgottenWhileAsked(t *testing.T) {
	var r *Register
	meanwhile := func() {}
	clock := func() time.Duration {
		now := meanwhile
		meanwhile = func() {}
		now()
		return noon
	}
	disk := failovertest.NewDisk(1)
	r, err := OpenRegister(disk, RegisterConfig{Log: quiet, MaxServices: 2, Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	q := ask(replaces(0), operator(0), seen(read(t, r).Stamp))
	meanwhile = func() {
		tell(t, r, saysOf("x1", "a", View{}))
		tell(t, r, saysOf("x2", "a", View{}))
		if a, err := r.Change(ask(replaces(0), from("b"), holder("b"), operator(7), seen(q.Seen))); err != nil || !a.Granted {
			t.Errorf("meanwhile: %+v, %v", a, err)
		}
	}
	if a, err := r.Change(q); !errors.Is(err, ErrFull) {
		t.Errorf("two records of one service: %+v, %v", a, err)
	}
	disk.PowerCycle()
	if a := read(t, openRegister(t, disk)); a.Record.String() != "epoch 7, held by b (alone)" {
		t.Errorf("%+v", a)
	}
}

// Two nodes ask for the same epoch at once, many times, and either might have
// it.
func TestRegisterRace(t *testing.T) {
	clock := &handClock{}
	r := openRegisterAt(t, failovertest.NewDisk(1), clock)
	change(t, r, first)
	epoch := uint64(1)
	for range 200 {
		holds := read(t, r).Record.Holder
		other := map[string]string{"a": "b", "b": "a"}[holds]
		if a := change(t, r, ask(from(holds), holder(holds), mode(Pair), replaces(epoch))); !a.Granted {
			t.Fatalf("pair: %+v", a)
		}
		epoch++
		clock.pass(patience)
		now := read(t, r).Stamp
		var answers [2]Answer
		var both sync.WaitGroup
		for i, name := range []string{holds, other} {
			both.Go(func() {
				q := ask(from(name), holder(name), replaces(epoch), seen(now))
				q.Token = NewToken()
				answers[i], _ = r.Change(q)
			})
		}
		both.Wait()
		if answers[0].Granted == answers[1].Granted {
			t.Fatalf("epoch %d: %+v", epoch, answers)
		}
		epoch++
	}
}

// Both nodes speak at once to a witness that has lost everything, while services
// that nobody has come and go: one record comes of it.
func TestRegisterRestoreRace(t *testing.T) {
	for range 50 {
		r, err := OpenRegister(failovertest.NewDisk(1), RegisterConfig{Log: quiet, MaxServices: 2})
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for i, name := range []string{"a", "b", "x", "y"} {
			all.Go(func() {
				for turn := range 20 {
					if i < 2 {
						r.Read(says(name, View{uint64(5 + i), "a", Pair}))
					} else {
						r.Read(saysOf(name+string(rune('a'+turn)), name, View{}))
					}
				}
			})
		}
		all.Wait()
		if a := tell(t, r, says("a", View{6, "a", Pair})); !a.Record.Empty() && a.Record.Epoch != 6 {
			t.Fatalf("%+v", a)
		}
	}
}
