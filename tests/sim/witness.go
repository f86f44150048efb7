// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/twinbd/twinbd/failover"
	"github.com/twinbd/twinbd/failover/failovertest"
)

// witness is the real register on a disk that can lose power.
type witness struct {
	register *failover.Register // nil: down
	disk     *failovertest.Disk
	random   *rand.Rand
	deaf     int // its answers are lost, by so many faults
	moody    int // it refuses what it would grant
}

// record is what the register last made durable, as this world saw it.
type record = failover.View

func (w *world) openWitness() {
	w.witness = witness{
		disk: failovertest.NewDisk(w.opt.Seed), random: rand.New(rand.NewPCG(w.opt.Seed, 6)),
	}
	w.startWitness()
}

func (w *world) startWitness() {
	r, err := failover.OpenRegister(w.witness.disk, failover.RegisterConfig{
		Log: slog.New(slog.DiscardHandler), Random: filler{w.witness.random},
		Clock: func() time.Duration { return w.now + 7*time.Hour },
	})
	w.must(err)
	w.witness.register = r
	w.note("witness up")
	w.say("witness up")
}

func (w *world) stopWitness(power bool) {
	if w.witness.register == nil {
		return
	}
	w.witness.register = nil
	w.note("witness down")
	w.say("witness down, power %t", power)
	if power {
		w.witness.disk.PowerCycle()
	} else {
		w.witness.disk.Restart()
	}
}

// question is a query or a change on its way.
type question struct {
	query   *failover.Query
	request *failover.Request
}

// ask carries a question to the witness, straight or through the peer, and its
// answer back. What is on a connection that is cut arrives late.
func (p *process) ask(nonce uint64, q question) {
	w, from := p.node.world, p.node.id
	p.asking = nonce
	way := []int{from, third}
	if !w.reaches(from, third) && w.reaches(from, 1-from) && w.nodes[1-from].process != nil {
		way = []int{from, 1 - from, third}
	}
	w.travel(way, func() {
		answer, ok := w.answer(from, q)
		if !ok {
			return
		}
		back := make([]int, len(way))
		for i, place := range way {
			back[len(way)-1-i] = place
		}
		w.travel(back, func() {
			if p.ended || p.asking != nonce { // the exchange was given up
				return
			}
			p.run(func() {
				p.take(func(m *failover.Machine, now time.Duration) []failover.Action { return m.Answered(now, nonce, answer) })
			})
		})
	})
}

// travel goes from place to place.
func (w *world) travel(way []int, arrive func()) {
	if len(way) == 1 {
		arrive()
		return
	}
	if r := way[0]; r < third && w.nodes[r].process == nil {
		return
	}
	d := w.delay(way[0], way[1])
	if w.net.IntN(60) == 0 {
		d += between(w.net, 0, timeout)
	}
	w.transmit(way[0], way[1], w.now+d, func() { w.travel(way[1:], arrive) })
}

// answer is what the witness says, if it says anything.
func (w *world) answer(from int, q question) (a failover.Answer, ok bool) {
	t := &w.witness
	if t.register == nil {
		return a, false
	}
	var err error
	if q.query != nil {
		query := *q.query
		query.Cluster, query.From = "sim", places[from]
		a, err = t.register.Read(query)
	} else {
		request := *q.request
		request.Cluster, request.From = "sim", places[from]
		if t.moody > 0 && t.random.IntN(2) == 0 {
			a, err = t.register.Read(failover.Query{Cluster: "sim", Service: request.Service, From: places[from], Timeout: timeout})
			a.Reason = "the witness does not feel like it"
		} else {
			a, err = t.register.Change(request)
		}
	}
	if err != nil {
		w.say("witness: %v", err)
		return a, false
	}
	w.recorded(a.Record.View())
	return a, t.deaf == 0 && t.random.IntN(100) > 0
}

// recorded keeps what the record is, and that it never goes back.
func (w *world) recorded(v record) {
	if v == w.seen {
		return
	}
	if v.Epoch <= w.seen.Epoch {
		w.fail("witness: %v becomes %v", w.seen, v)
	}
	w.say("record: %v", v)
	w.note("record", int64(v.Epoch))
	w.seen = v
}
