// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"time"

	"github.com/twinbd/twinbd/failover"
)

// line is one direction between two places.
type line struct {
	cut     int           // by so many faults; nothing passes
	slow    time.Duration // more delay than usual
	waiting []func()      // what a connection keeps sending until it passes
}

// delay is how long something takes on a line.
func (w *world) delay(from, to int) time.Duration {
	d := between(w.net, 20*time.Microsecond, 800*time.Microsecond)
	if w.net.IntN(200) == 0 {
		d += between(w.net, 0, 30*time.Millisecond)
	}
	if s := w.lines[from][to].slow; s > 0 {
		d += between(w.net, s/4, s)
	}
	return d
}

func (w *world) passes(from, to int) bool { return w.lines[from][to].cut == 0 }

// reaches reports whether two places can talk to each other.
func (w *world) reaches(a, b int) bool { return w.passes(a, b) && w.passes(b, a) }

// transmit calls arrive when something that a connection carries gets through:
// what is lost on the way is sent again.
func (w *world) transmit(from, to int, at time.Duration, arrive func()) {
	w.queue.push(at, func() {
		if l := &w.lines[from][to]; l.cut > 0 {
			l.waiting = append(l.waiting, arrive)
			return
		}
		arrive()
	})
}

// cutLine takes a direction away, and mendLine gives it back: what waited comes
// through, in order.
func (w *world) cutLine(from, to int) {
	w.trouble = w.now
	w.lines[from][to].cut++
}

func (w *world) mendLine(from, to int) {
	l := &w.lines[from][to]
	w.trouble = w.now
	if l.cut--; l.cut > 0 {
		return
	}
	waiting := l.waiting
	l.waiting = nil
	for _, arrive := range waiting {
		w.after(0, arrive) // before whatever is sent from now on
	}
}

// beat carries a heartbeat: it may be lost, late or doubled.
func (w *world) beat(from int, b failover.Beat) {
	to := 1 - from
	times := 1
	if w.net.IntN(40) == 0 {
		times = 2
	}
	for range times {
		d := w.delay(from, to)
		if w.net.IntN(50) == 0 {
			d += between(w.net, 0, 2*timeout)
		}
		w.after(d, func() {
			if p := w.nodes[to].process; p != nil && w.passes(from, to) {
				p.run(func() {
					p.take(func(m *failover.Machine, now time.Duration) []failover.Action { return m.Heard(now, b) })
				})
			}
		})
	}
}
