// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"flag"
	"math/rand/v2"
	"testing"
)

var (
	simSeed = flag.Uint64("sim.seed", 0, "run this seed only")
	simRuns = flag.Int("sim.runs", 300, "how many fresh seeds to run")
)

// TestPair runs random schedules of requests, crashes, power cuts and link
// cuts, and checks after each healing that both disks are alike and hold what
// clients were told.
func TestPair(t *testing.T) {
	if *simSeed != 0 {
		schedule(t, *simSeed)
		return
	}
	for range *simRuns {
		schedule(t, rand.Uint64())
	}
}

func schedule(t *testing.T, seed uint64) {
	p := newPair(t, seed)
	p.heal()
	for range 6 {
		for i := 200 + p.rng.IntN(2000); i > 0; i-- {
			p.step()
		}
		p.fault()
		for i := p.rng.IntN(1500); i > 0; i-- {
			p.step()
			if p.rng.IntN(400) == 0 {
				p.fault()
			}
			if p.rng.IntN(200) == 0 {
				p.operate()
			}
		}
		p.heal()
	}
	if p.client.ops < 100 {
		p.fail("only %d requests", p.client.ops)
	}
}

// fault breaks something.
func (p *pair) fault() {
	n := p.nodes[p.rng.IntN(2)]
	switch p.rng.IntN(8) {
	case 0, 1:
		p.kill(n, false)
	case 2, 3:
		p.kill(n, true)
	case 4:
		p.cut()
	case 5:
		p.noAnswer = !p.noAnswer
	case 6:
		if n.engine == nil {
			n.boot()
		}
	case 7:
		p.connect()
	}
}

// operate is what an operator does meanwhile.
func (p *pair) operate() {
	n := p.nodes[p.rng.IntN(2)]
	switch {
	case n.engine == nil:
		n.boot()
	case n.peer().engine != nil && n.engine.session.state == Disconnected:
		p.connect()
	case n.peer().engine == nil:
		p.prim(n)
	}
}
