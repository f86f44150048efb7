// SPDX-License-Identifier: Apache-2.0

package failover_test

import (
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"

	. "github.com/twinbd/twinbd/failover"
	"github.com/twinbd/twinbd/failover/failovertest"
)

var quiet = slog.New(slog.DiscardHandler)

func openRegister(t *testing.T, dir Directory) *Register {
	t.Helper()
	r, err := OpenRegister(dir, RegisterConfig{Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// read returns the answer to a query of node a about service s of cluster c.
func read(t *testing.T, r *Register) Answer {
	t.Helper()
	a, err := r.Read(Query{Cluster: "c", Service: "s", From: "a"})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// change asks with a new token and the last answer's number.
func change(t *testing.T, r *Register, q Request) Answer {
	t.Helper()
	q.Token, q.Seen = NewToken(), read(t, r).Serial
	a, err := r.Change(q)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// first is the operator's choice of node a at an empty witness.
var first = ask(replaces(0), operator(0))

const recordFile = "record.c.s"

func TestRegisterKeepsWhatItTold(t *testing.T) {
	disk := failovertest.NewDisk(1)
	r := openRegister(t, disk)
	if a := read(t, r); !a.Record.Empty() || a.Granted {
		t.Fatalf("a new witness knows %+v", a)
	}
	granted := change(t, r, first)
	if !granted.Granted || granted.Record.String() != "epoch 1, held by a (alone)" {
		t.Fatalf("first: %+v", granted)
	}
	disk.PowerCycle()
	if a := read(t, openRegister(t, disk)); a.Record != granted.Record {
		t.Errorf("told %v and has %v after a power cut", granted.Record, a.Record)
	}
}

func TestRegisterSerialsRise(t *testing.T) {
	r := openRegister(t, failovertest.NewDisk(1))
	last := read(t, r).Serial
	for _, a := range []Answer{read(t, r), change(t, r, first), change(t, r, first), read(t, r)} {
		if a.Serial <= last {
			t.Errorf("serial %d after %d", a.Serial, last)
		}
		last = a.Serial
	}
}

func TestRegisterVoidsWhatAnotherRunSaw(t *testing.T) {
	disk := failovertest.NewDisk(1)
	r := openRegister(t, disk)
	q := first
	q.Seen = read(t, r).Serial
	made, err := r.Change(q)
	if err != nil || !made.Granted {
		t.Fatal(made, err)
	}
	late := ask(replaces(1), mode(Pair))
	late.Token, late.Seen = NewToken(), made.Serial

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
	late.Seen = void.Serial
	if a, err := r.Change(late); err != nil || !a.Granted {
		t.Errorf("asked anew: %+v, %v", a, err)
	}
	late.Token, late.Replaces, late.Seen = NewToken(), 2, late.Seen+1000
	if a, err := r.Change(late); err != nil || !a.Void {
		t.Errorf("an answer that was never given: %+v, %v", a, err)
	}
}

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
			if a, err := r.Read(Query{Cluster: q.Cluster, Service: q.Service, From: q.From}); !errors.Is(err, ErrBadRequest) {
				t.Errorf("%+v: read %+v, %v", q, a, err)
			}
		}
	}
	if names, _ := disk.Names(); len(names) != 0 {
		t.Errorf("files were made: %q", names)
	}
}

func TestRegisterIsBounded(t *testing.T) {
	disk := failovertest.NewDisk(1)
	r, err := OpenRegister(disk, RegisterConfig{Log: quiet, MaxServices: 2})
	if err != nil {
		t.Fatal(err)
	}
	prim := func(service string) error {
		q := first
		q.Service, q.Token, q.Seen = service, NewToken(), read(t, r).Serial
		_, err := r.Change(q)
		return err
	}
	// Asking makes nothing: neither a read nor a refused change takes room.
	for _, service := range []string{"x1", "x2", "x3"} {
		q := ask(replaces(0))
		q.Service, q.Seen = service, read(t, r).Serial
		if a, err := r.Change(q); err != nil || a.Granted {
			t.Fatalf("%+v, %v", a, err)
		}
	}
	if err := errors.Join(prim("s1"), prim("s2")); err != nil || r.Len() != 2 {
		t.Fatalf("%d services, %v", r.Len(), err)
	}
	if err := prim("s3"); !errors.Is(err, ErrFull) {
		t.Errorf("third of two: %v", err)
	}
}

// One service's damage is its own, is told, and is never painted over.
func TestRegisterUnusableFiles(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(*failovertest.Disk)
		want  string
	}{
		{"both copies rotten", func(d *failovertest.Disk) { d.Rot(recordFile, 40); d.Rot(recordFile, 4096+40) }, "checksum does not match"},
		{"empty file", func(d *failovertest.Disk) { d.Put(recordFile, nil) }, "empty"},
		{"zeroes", func(d *failovertest.Disk) { d.Put(recordFile, make([]byte, 8192)) }, "empty"},
		{"another service's file", func(d *failovertest.Disk) { d.Put(recordFile, d.Get("record.c.t")) }, "belongs to service t of cluster c"},
		{"something else", func(d *failovertest.Disk) { d.Put(recordFile, []byte(strings.Repeat("hello ", 2000))) }, "not of this kind"},
	} {
		t.Run(c.name, func(t *testing.T) {
			disk := failovertest.NewDisk(1)
			r := openRegister(t, disk)
			change(t, r, first)
			other := first
			other.Service = "t"
			change(t, r, other)
			disk.Restart()
			c.spoil(disk)
			before := disk.Get(recordFile)

			r = openRegister(t, disk)
			_, err := r.Read(Query{Cluster: "c", Service: "s", From: "a"})
			if !errors.Is(err, ErrUnusable) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "primforce s") {
				t.Errorf("read: %v", err)
			}
			forced := ask(replaces(0), operator(9))
			if a, err := r.Change(forced); !errors.Is(err, ErrUnusable) {
				t.Errorf("change: %+v, %v", a, err)
			}
			if string(disk.Get(recordFile)) != string(before) && c.name != "another service's file" {
				t.Error("the file was changed")
			}
			a, err := r.Read(Query{Cluster: "c", Service: "t", From: "a"})
			if err != nil || a.Record.Epoch != 1 {
				t.Errorf("the other service: %+v, %v", a, err)
			}
		})
	}
}

// A single copy may rot anywhere and at any time when nobody writes.
func TestRegisterSurvivesRotOfOneCopy(t *testing.T) {
	for copyAt := int64(0); copyAt < 8192; copyAt += 4096 {
		for offset := int64(0); offset < 192; offset++ {
			disk := failovertest.NewDisk(1)
			r := openRegister(t, disk)
			change(t, r, first)
			told := change(t, r, ask(replaces(1), mode(Pair))).Record
			disk.Restart()
			disk.Rot(recordFile, copyAt+offset)
			r = openRegister(t, disk)
			if got := read(t, r).Record; got != told {
				t.Fatalf("byte %d: told %v and has %v", copyAt+offset, told, got)
			}
		}
	}
}

func TestRegisterIgnoresForeignFiles(t *testing.T) {
	disk := failovertest.NewDisk(1)
	for _, name := range []string{"lock", "record.", "record.x", "record.A.b", "record.c.s.t", "record.c.s.new", "notes.txt"} {
		disk.Put(name, []byte("x"))
	}
	if r := openRegister(t, disk); r.Len() != 0 {
		t.Errorf("%d services", r.Len())
	}
}

// Two nodes ask for the same epoch at once, many times.
func TestRegisterRace(t *testing.T) {
	r := openRegister(t, failovertest.NewDisk(1))
	change(t, r, first)
	epoch := uint64(1)
	for range 200 {
		holds := read(t, r).Record.Holder
		other := map[string]string{"a": "b", "b": "a"}[holds]
		if a := change(t, r, ask(from(holds), holder(holds), mode(Pair), replaces(epoch))); !a.Granted {
			t.Fatalf("pair: %+v", a)
		}
		epoch++
		seen := read(t, r).Serial
		var answers [2]Answer
		var both sync.WaitGroup
		for i, name := range []string{holds, other} {
			both.Go(func() {
				q := ask(from(name), holder(name), replaces(epoch))
				q.Token, q.Seen = NewToken(), seen
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

func TestOpenDirectoryIsForOne(t *testing.T) {
	path := t.TempDir() + "/deep/state"
	dir, err := OpenDirectory(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDirectory(path); err == nil || !strings.Contains(err.Error(), "in use by another twinbd") {
		t.Errorf("second: %v", err)
	}
	told := change(t, openRegister(t, dir), first).Record
	if err := dir.Close(); err != nil {
		t.Fatal(err)
	}
	dir, err = OpenDirectory(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if got := read(t, openRegister(t, dir)).Record; got != told {
		t.Errorf("told %v and has %v", told, got)
	}
}
