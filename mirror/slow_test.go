// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"testing"
	"time"

	"github.com/twinbd/twinbd/internal/block"
)

// slowDisk is a page cache before a disk: writes cost nothing, a flush takes what
// the disk needs for all that was written before it.
type slowDisk struct {
	pace  float64       // bytes per second
	seek  time.Duration // for each write that does not follow the one before
	dirty time.Duration // what a flush would take
	end   int64         // of the last write
	flush *block.Task   // under way
	since time.Duration // it
	until time.Duration
}

func (s *slowDisk) wrote(t *block.Task) {
	s.dirty += time.Duration(float64(t.Length) / s.pace * float64(time.Second))
	if t.Offset != s.end {
		s.dirty += s.seek
	}
	s.end = t.Offset + t.Length
}

// slowDuo is two engines on slow disks, and a client that writes at the speed of
// memory.
type slowDuo struct {
	*duo
	t       *testing.T
	slow    [2]slowDisk
	ready   []*slowWrite
	begun   int           // writes
	done    int           // of them
	written int64         // their bytes
	longest time.Duration // that a flush took
	waited  time.Duration // longest that a write did
}

type slowWrite struct {
	block.Request
	duo    *slowDuo
	number int
	since  time.Duration
}

func (w *slowWrite) Complete(*block.Request) {
	d := w.duo
	if w.Status != block.OK {
		d.t.Fatalf("after %v: %v", d.now, w.Status)
	}
	if d.done++; w.number != d.done {
		d.t.Fatalf("after %v: write %d is answered in the place of %d", d.now, w.number, d.done)
	}
	d.waited = max(d.waited, d.now-w.since)
	d.written += w.Length
	d.ready = append(d.ready, w)
}

// client begins to keep depth writes of length bytes under way.
func (d *slowDuo) client(depth int, length int64) {
	d.ready = nil
	for range depth {
		w := &slowWrite{duo: d}
		w.Owner, w.Op, w.Length = w, block.Write, length
		w.Record = make([]byte, block.RecordHeader+length)
		w.Data = w.Record[block.RecordHeader:]
		d.ready = append(d.ready, w)
	}
}

// run lets time pass in milliseconds. In each the client begins 1 MB of writes at
// most, stride bytes apart.
func (d *slowDuo) run(span time.Duration, stride int64) {
	at := int64(0)
	for end := d.now + span; d.now < end; {
		var b block.Batch
		for budget := int64(1e6); budget > 0 && len(d.ready) > 0; {
			w := d.ready[0]
			d.ready = d.ready[1:]
			d.begun++
			w.number, w.since, w.Offset = d.begun, d.now, at
			block.PutRecord(w.Record, w.Op, 0, 0, w.Offset, w.Length)
			at = (at + stride) % duoSize
			budget -= w.Length
			b.Requests = append(b.Requests, &w.Request)
		}
		d.pass(&b)
	}
}

// drain waits until no write is under way.
func (d *slowDuo) drain(depth int) {
	for end := d.now + 10*time.Second; len(d.ready) < depth; {
		if d.pass(&block.Batch{}); d.now == end {
			d.t.Fatalf("%d writes are never answered", depth-len(d.ready))
		}
	}
}

// pass lets a millisecond pass, at the beginning of which b arrives.
func (d *slowDuo) pass(b *block.Batch) {
	d.engines[0].Submit(d.now, b)
	d.turn()
	if d.now += time.Millisecond; d.now%TickEvery != 0 {
		return
	}
	for i, e := range d.engines {
		e.Tick(d.now)
		stuck := time.Duration(0)
		if s := &d.slow[i]; s.flush != nil {
			stuck = d.now - s.since
		}
		e.CheckDisk(d.now, stuck)
	}
	d.turn()
}

// turn does what can be done now: everything but flushes that are not due.
func (d *slowDuo) turn() {
	for more := true; more; {
		more = false
		for i, e := range d.engines {
			for k, l := range d.links[i] {
				more = pass(l, d.links[1-i][k]) || more
			}
			s := &d.slow[i]
			if f := s.flush; f != nil && d.now >= s.until {
				s.flush, more = nil, true
				e.Finished(d.now, f)
			}
			for tasks := e.Tasks(); len(tasks) > 0; tasks = e.Tasks() {
				for _, t := range tasks {
					d.begin(i, t)
				}
				more = true
			}
		}
	}
}

func (d *slowDuo) begin(i int, t *block.Task) {
	s := &d.slow[i]
	if t.Target == block.Data && t.Op == block.Flush {
		if s.flush != nil {
			d.t.Fatal("two flushes of one disk at once")
		}
		s.flush, s.since, s.until = t, d.now, d.now+s.dirty
		d.longest = max(d.longest, s.dirty)
		s.dirty = 0
		return
	}
	if t.Target == block.Data && t.Op == block.Write {
		s.wrote(t)
	}
	t.Err = carryOut(d.disks[i][t.Target], t)
	d.engines[i].Finished(d.now, t)
}

// TestSlowDiskIsNotLost: a client writes at the speed of memory to disks that
// flush slowly. No disk and no peer is taken for dead, the client gets what the
// disks do, and no request waits for ever.
func TestSlowDiskIsNotLost(t *testing.T) {
	const mib = 1 << 20
	slow, fast, heads := slowDisk{pace: 20e6}, slowDisk{pace: 2e9}, slowDisk{pace: 150e6, seek: 4 * time.Millisecond}
	type phase struct {
		span   time.Duration
		length int64
		stride int64
		pace   float64 // from when on the disks have it, if not 0
		want   float64 // bytes per second
	}
	for _, c := range []struct {
		name   string
		disks  [2]slowDisk
		alone  bool
		flush  time.Duration // that none may take longer than
		phases []phase
	}{
		{"here", [2]slowDisk{slow, fast}, false, 2 * time.Second, []phase{{10 * time.Second, mib, mib, 0, 20e6}}},
		{"at the peer", [2]slowDisk{fast, slow}, false, 2 * time.Second, []phase{{10 * time.Second, mib, mib, 0, 20e6}}},
		{"both", [2]slowDisk{slow, slow}, false, 2 * time.Second, []phase{{10 * time.Second, mib, mib, 0, 20e6}}},
		{"alone", [2]slowDisk{slow, slow}, true, 2 * time.Second, []phase{{10 * time.Second, mib, mib, 0, 20e6}}},
		{"disks with heads, that have to begin to move them", [2]slowDisk{heads, heads}, false, 2500 * time.Millisecond,
			[]phase{{2 * time.Second, mib, mib, 0, 150e6}, {12 * time.Second, 4096, 5 * 4096, 0, 4096 / 0.004}, {time.Second, mib, mib, 0, 110e6}}},
		{"disks whose caches fill up, and empty", [2]slowDisk{fast, fast}, false, 4 * time.Second,
			[]phase{{600 * time.Millisecond, mib, mib, 0, 900e6}, {4 * time.Second, mib, mib, 150e6, 150e6}, {600 * time.Millisecond, mib, mib, 2e9, 500e6}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := &slowDuo{duo: newDuo(t), t: t, slow: c.disks}
			d.engines[0].SetRight(d.now, RightPair)
			if c.alone {
				d.engines[0].Disconnect(d.now, "test")
				d.engines[0].SetRight(d.now, RightAlone)
			}
			for i, p := range c.phases {
				if p.pace != 0 {
					d.slow[0].pace, d.slow[1].pace = p.pace, p.pace
				}
				d.client(64, p.length)
				before := d.written
				d.run(p.span, p.stride)
				got := float64(d.written-before) / p.span.Seconds()
				t.Logf("phase %d: %.1f MB/s; up to now flushes of %v and writes of %v at most", i, got/1e6, d.longest, d.waited)
				if got < 0.8*p.want {
					t.Errorf("phase %d: %.1f MB/s where the disks do %.1f", i, got/1e6, p.want/1e6)
				}
				d.drain(64)
			}
			if d.longest > c.flush {
				t.Errorf("a flush took %v, want at most %v", d.longest, c.flush)
			}
			for i, e := range d.engines {
				if e.local != diskGood || !c.alone && e.session.state != Mirroring {
					t.Errorf("node %d: disk %v, %v: %s%s", i, e.local, e.session.state, e.session.reason, e.localWhy)
				}
			}
		})
	}
}
