// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"slices"
	"testing"
	"time"
)

// A late answer of what stands in for a witness is no leave: the node that waited
// for it may have stood still, while its peer took the service.
func TestRule19StandinsAnswerInTime(t *testing.T) {
	const timeout = 30 * time.Second // more than the exchange could take
	answers := map[Arbiter]func(*Machine, time.Duration, uint64){
		ByPing:  func(m *Machine, now time.Duration, nonce uint64) { m.Pinged(now, nonce, Ping{Router: true}) },
		ByFence: func(m *Machine, now time.Duration, _ uint64) { m.Fenced(now, nil) },
	}
	for arbiter, answer := range answers {
		for _, place := range []int{alpha, beta} {
			for _, c := range []struct {
				name string
				late time.Duration
				tick bool // the machine learns of the time before it learns of the answer
				want bool
			}{
				{"at once", 0, false, true},
				{"after a freeze", timeout, false, false},
				{"after a freeze, and a look at the clock", timeout, true, false},
			} {
				t.Run(arbiter.String()+" "+places[place]+" "+c.name, func(t *testing.T) {
					m, now, nonce := asking(t, arbiter, place)
					if now += c.late; c.tick {
						m.Tick(now)
					}
					answer(m, now, nonce)
					if got := m.right == RightAlone; got != c.want {
						t.Errorf("may go on alone, or take over: %t", got)
					}
				})
			}
		}
	}
}

// Who is heard again while the fence command runs is not switched off, whatever
// that says.
func TestRule19FencedAndHeard(t *testing.T) {
	for _, place := range []int{alpha, beta} {
		m, now, _ := asking(t, ByFence, place)
		m.Heard(now, Beat{Boot: 99, EchoBoot: m.boot, Echo: now, Sent: now, Wanted: WantStart})
		m.Fenced(now, nil)
		if m.right == RightAlone {
			t.Errorf("%s goes on without a peer that it hears", places[place])
		}
	}
}

// asking is a copy of a node of a pair that has lost its peer, at the moment at
// which it asks the router or begins to fence.
func asking(t *testing.T, arbiter Arbiter, place int) (*Machine, time.Duration, uint64) {
	t.Helper()
	w := pairWorld(arbiter)
	m, now := w.nodes[place].m, w.local(place)
	if d := m.data; m.role != idle {
		d.Mirrored, d.Lost = false, true
		m.Saw(now, d)
	}
	for range 40 {
		now += m.set.Heartbeat
		actions := m.Tick(now)
		if k := slices.IndexFunc(actions, func(a Action) bool { return a.Do == DoPing || a.Do == DoFence }); k >= 0 && m.asksFor() != forNothing {
			return &m, now, actions[k].Nonce
		}
	}
	t.Fatalf("%s asks for nothing", places[place])
	return nil, 0, 0
}

// asksFor is what the router or the fence command is asked for.
func (m *Machine) asksFor() purpose {
	if m.fence.on {
		return m.fence.why
	}
	return m.ping.why
}

// A restarted holder waits until a peer that has been given the service meanwhile
// can be heard.
func TestRule22RestartedHolderWaits(t *testing.T) {
	for _, arbiter := range []Arbiter{ByPing, ByFence, ByNobody} {
		t.Run(arbiter.String(), func(t *testing.T) {
			w := pairWorld(arbiter)
			w.crash(beta, false)
			w.until(t, 8, func() bool { return w.nodes[alpha].engine.right == RightAlone })
			w.crash(alpha, false)
			w.start(alpha)
			w.ticks(2)
			if w.serves(alpha) {
				t.Error("it serves before a peer could be heard")
			}
			w.until(t, 12, func() bool { return w.serves(alpha) })
		})
	}
}
