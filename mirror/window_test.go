// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"testing"

	"github.com/twinbd/twinbd/internal/block"
)

// work carries out the tasks of one engine, and what these lead to; nothing
// passes between the two.
func (d *duo) work(i int) {
	e := d.engines[i]
	for tasks := e.Tasks(); len(tasks) > 0; tasks = e.Tasks() {
		for _, t := range tasks {
			t.Err = carryOut(d.disks[i][t.Target], t)
			e.Finished(d.now, t)
		}
	}
}

// More writes than the window holds wait their turn: none is lost, whether the
// peer answers or is lost meanwhile.
func TestWindowOverflow(t *testing.T) {
	const more = 100
	for name, lost := range map[string]bool{"the peer answers": false, "the peer is lost": true} {
		t.Run(name, func(t *testing.T) {
			d := newDuo(t)
			e, l := d.engines[0], newLoad(block.Write, 0, windowSlots+more)
			for i, r := range l.batch.Requests { // each in a block of its own
				r.Offset = int64(i) * block.Size
				block.PutRecord(r.Record, r.Op, 0, 0, r.Offset, r.Length)
			}
			e.backlog.limit = e.backlog.ceiling()
			e.SetRight(d.now, RightPair)
			e.Submit(d.now, &l.batch)
			d.work(0)
			if n := e.window.next - e.window.oldest; n != windowSlots || e.window.stalled.length != more {
				t.Fatalf("%d in the window and %d waiting, want %d and %d", n, e.window.stalled.length, windowSlots, more)
			}
			if l.done != 0 {
				t.Fatalf("%d acknowledged without the peer", l.done)
			}
			if lost {
				e.Disconnect(d.now, "test")
				d.work(0)
				if l.done != 0 {
					t.Fatalf("%d acknowledged without the right", l.done)
				}
				e.SetRight(d.now, RightAlone)
				d.work(0)
			} else {
				d.run()
			}
			if l.done != windowSlots+more || l.bad != 0 {
				t.Errorf("%d acknowledged, %d with an error", l.done, l.bad)
			}
			if want := int64(windowSlots + more); lost && e.dirty.Count() != want {
				t.Errorf("%d blocks are dirty, want %d", e.dirty.Count(), want)
			}
			if n := e.window.count + e.window.stalled.length + e.ops.used; n != 0 {
				t.Errorf("%d left over", n)
			}
		})
	}
}

// A full log of what the peer has not flushed holds writes back while the other
// half of it is being flushed, and has both disks flushed once more.
func TestLogOverflow(t *testing.T) {
	d := newDuo(t)
	e, l := d.engines[0], newLoad(block.Write, 0, 3)
	d.turn(l) // the intents are set
	e.rounds.want(e)
	for len(e.marks.open) < logExtents-1 {
		e.marks.open = append(e.marks.open, makeExtent(0, 1))
	}
	done, rounds := l.done, e.rounds.completed
	e.Submit(d.now, &l.batch)
	if n := e.window.next - e.window.oldest; n != 1 || e.window.stalled.length != 2 {
		t.Fatalf("%d in the window and %d waiting with room for one", n, e.window.stalled.length)
	}
	d.run()
	if l.done != done+3 || l.bad != 0 || e.rounds.completed < rounds+2 {
		t.Errorf("%d acknowledged, %d with an error, %d rounds", l.done-done, l.bad, e.rounds.completed-rounds)
	}
	if len(e.marks.open) > 3 || cap(e.marks.open) != logExtents {
		t.Errorf("the log holds %d, and may hold %d", len(e.marks.open), cap(e.marks.open))
	}
}
