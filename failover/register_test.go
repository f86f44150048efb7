// SPDX-License-Identifier: Apache-2.0

package failover_test

import (
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/twinbd/twinbd/failover"
	"github.com/twinbd/twinbd/failover/failovertest"
)

var quiet = slog.New(slog.DiscardHandler)

// handClock is a clock that is moved by hand. It begins at noon.
type handClock struct{ passed atomic.Int64 }

func (c *handClock) now() time.Duration     { return noon + time.Duration(c.passed.Load()) }
func (c *handClock) pass(how time.Duration) { c.passed.Add(int64(how)) }

func openRegister(t *testing.T, dir Directory) *Register {
	t.Helper()
	return openRegisterAt(t, dir, nil)
}

func openRegisterAt(t *testing.T, dir Directory, clock *handClock) *Register {
	t.Helper()
	config := RegisterConfig{Log: quiet}
	if clock != nil {
		config.Clock = clock.now
	}
	r, err := OpenRegister(dir, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// read returns the answer to a query of node a about service s of cluster c.
func read(t *testing.T, r *Register) Answer {
	t.Helper()
	return tell(t, r, says("a", View{}))
}

// tell returns the answer to a query.
func tell(t *testing.T, r *Register, q Query) Answer {
	t.Helper()
	a, err := r.Read(q)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// change asks with a new token and names the last answer.
func change(t *testing.T, r *Register, q Request) Answer {
	t.Helper()
	q.Token, q.Seen = NewToken(), read(t, r).Stamp
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
			_, err := r.Read(says("a", View{}))
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
			a, err := r.Read(saysOf("t", "a", View{}))
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
