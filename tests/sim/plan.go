// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/twinbd/twinbd/mirror"
)

// plan is what goes wrong in a schedule, drawn before it begins, so that leaving
// out one fault leaves the others as they are.
type plan struct {
	world  *world
	rounds [][]fault
	pace   time.Duration // between what clients do, at most

	left   []fault // of this round
	armed  *fault  // waits for its session
	active int     // faults that have not ended
}

// aims are the moments at which most goes wrong.
var aims = [...]mirror.SessionState{mirror.Greeting, mirror.Comparing, mirror.Resyncing, mirror.Resyncing}

func newPlan(w *world, r *rand.Rand) plan {
	p := plan{world: w, pace: time.Duration(60+r.IntN(400)) * time.Millisecond}
	number := 0
	for range 2 + r.IntN(3) {
		var round []fault
		for range 3 + r.IntN(5) {
			f := fault{
				number: number, kind: faultKind(r.IntN(int(faultKinds))), node: r.IntN(2), volume: r.IntN(2),
				wait: between(r, 0, 3*time.Second), lasts: between(r, 5*time.Millisecond, 5*time.Second),
			}
			if r.IntN(3) == 0 {
				f.kind = [...]faultKind{crashProcess, powerCut, powerCutBoth, cutPeers, freeze, cutOneWay, halfOpen}[r.IntN(7)]
			}
			if r.IntN(4) > 0 {
				f.aim, f.wait = aims[r.IntN(len(aims))], between(r, 0, 5*time.Millisecond)
			}
			number++
			if w.opt.Keep == nil || slices.Contains(w.opt.Keep, f.number) {
				round = append(round, f)
			}
		}
		p.rounds = append(p.rounds, round)
	}
	return p
}

func (p *plan) lines() (all []string) {
	for _, round := range p.rounds {
		for i := range round {
			all = append(all, round[i].String())
		}
	}
	return all
}

// numbers of the faults of the plan.
func (p *plan) numbers() (all []int) {
	for _, round := range p.rounds {
		for i := range round {
			all = append(all, round[i].number)
		}
	}
	return all
}

// patience is how long a fault waits for its session; then the connections are
// reset, so that there is one, and after many times it happens anyway.
const (
	patience = 700 * time.Millisecond
	nudges   = 6
)

// begin begins a round.
func (p *plan) begin(round []fault) {
	p.left = round
	p.next()
}

func (p *plan) next() {
	if len(p.left) == 0 {
		return
	}
	f := &p.left[0]
	p.left = p.left[1:]
	if f.aim == mirror.Disconnected {
		p.strike(f, f.wait)
		return
	}
	p.armed = f
	p.await(f, nudges)
}

// await sees to it that an armed fault happens.
func (p *plan) await(f *fault, left int) {
	p.world.after(patience, func() {
		switch {
		case p.armed != f:
		case left == 0:
			p.armed = nil
			p.strike(f, 0)
		default:
			p.world.reset(p.world.volumes[f.volume])
			p.await(f, left-1)
		}
	})
}

func (p *plan) strike(f *fault, wait time.Duration) {
	p.active++
	p.world.after(wait, func() {
		p.active--
		p.world.strike(f)
		p.next()
	})
}

// met hears of every change of a session.
func (p *plan) met(v *volume) {
	if f := p.armed; f != nil && v.status.Session == f.aim {
		p.armed = nil
		p.strike(f, f.wait)
	}
}

// over reports whether a round is.
func (p *plan) over() bool { return len(p.left) == 0 && p.armed == nil && p.active == 0 }
