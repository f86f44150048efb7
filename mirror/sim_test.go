// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"flag"
	"math/rand/v2"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/twinbd/twinbd/internal/block"
)

var (
	simSeed = flag.Uint64("sim.seed", 0, "run this seed only")
	simRuns = flag.Int("sim.runs", 10, "how many fresh seeds to run")
)

// TestPair runs random schedules of requests, crashes, power cuts, link and
// disk faults, and checks all the while that every difference is marked and
// every lone acknowledgement fenced, and after each healing that both disks are
// alike and hold what clients were told.
func TestPair(t *testing.T) {
	if *simSeed != 0 {
		schedule(t, *simSeed)
		return
	}
	began, runs, ops, checks := time.Now(), 0, 0, 0
	defer func() {
		took := time.Since(began).Seconds()
		t.Logf("%d schedules, %d requests, %d cover checks: %.1f schedules/s, %.0f requests/s",
			runs, ops, checks, float64(runs)/took, float64(ops)/took)
	}()
	for runs < *simRuns {
		runs++
		p := schedule(t, rand.Uint64())
		ops, checks = ops+p.client.ops, checks+p.checks
	}
}

// regressions are schedules that once failed.
var regressions = []struct {
	seed uint64
	what string
}{
	{8437723852088016166, "a disk of garbage taken by force, and written to"},
	{3573181316359681851, "a holder back from a power cut, while its peer kept running in step"},
	{9700343079793032949, "both disks fail; the first comes back to life after the other was taken by force"},
	{11735472907982524933, "a fresh disk at the record's holder begins another volume"},
	{17904444621413034752, "a disk that fails when it is taken by force"},
	{6091818283757667344, "a node that took over, never served, lost power, and holds the record alone"},
	{5988755345412315448, "both lose what was not flushed: one by a power cut, one by a failed flush"},
	{10610684732879113896, "a holder that restarted, and mirrors"},
	{11558845507227268506, "a secondary back from a power cut in the middle of a switch, while its peer kept running in step"},
	{14374793950801883125, "a host with much to flush takes over, and what it was asked for last finds no room"},
	{3903601122463517736, "a disk is replaced while the other is about to serve, with everything"},
}

func TestRegressions(t *testing.T) {
	for _, r := range regressions {
		t.Run(r.what, func(t *testing.T) { schedule(t, r.seed) })
	}
}

func schedule(t tester, seed uint64) *pair {
	p := newPair(t, seed)
	defer func() {
		bug := recover()
		if b, expected := bug.(broken); expected {
			panic(b)
		}
		if bug != nil {
			p.log("panic: %v\n%s", bug, debug.Stack())
			p.fail("panic: %v", bug)
		}
	}()
	p.heal()
	for range 5 {
		for _, n := range p.nodes {
			n.slow = p.rng.IntN(3) == 0
		}
		for i := 200 + p.rng.IntN(1500); i > 0; i-- {
			p.step()
		}
		if p.rng.IntN(3) == 0 {
			p.heal()
			p.verify()
		}
		p.fault()
		for i := p.rng.IntN(1500); i > 0; i-- {
			p.step()
			if p.rng.IntN(p.faultEvery()) == 0 {
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
	return p
}

// faultEvery is how many steps lie between faults: fewer while the nodes meet or
// resync, where it is more interesting.
func (p *pair) faultEvery() int {
	for _, n := range p.nodes {
		if n.engine != nil {
			switch n.engine.session.state {
			case Greeting, Comparing, Resyncing, Hosting:
				return 120
			}
		}
	}
	return 400
}

// operate is what an operator does meanwhile.
func (p *pair) operate() {
	n := p.nodes[p.rng.IntN(2)]
	switch {
	case n.engine == nil:
		n.boot()
	case n.peer().engine != nil && n.engine.session.state == Disconnected:
		p.connect()
	case n.peer().engine == nil && !p.forced:
		p.prim(n)
	case n.engine.Primary() && n.engine.session.state == Mirroring:
		p.log("switch from %s", n.name)
		n.engine.Demote(p.now, block.ShuttingDown, func() { n.gives = true })
		n.collect()
	}
}

// verify lets blocks rot on the secondary, and lets the primary find them.
func (p *pair) verify() {
	n := p.nodes[0]
	if !n.engine.Primary() {
		n = p.nodes[1]
	}
	for i := p.rng.IntN(4); i > 0; i-- {
		at := int64(p.rng.IntN(simSize))
		if !p.rotten[at/block.Size] { // twice would be none
			p.rotten[at/block.Size] = true
			n.peer().data.FlipBit(at, uint(p.rng.IntN(8)))
		}
	}
	p.log("%d blocks of %s rot", len(p.rotten), n.peer().name)
	calm, repair := p.rng.IntN(2) == 0, p.rng.IntN(2) == 0
	for !p.verified(n, calm, repair) {
		calm = false // a resync may have copied some
		p.heal()
	}
	if !repair {
		p.cut()
	}
	p.heal()
	clear(p.rotten)
	p.compare()
}

// verified runs one verify. It returns false when that was stopped, and asserts
// that otherwise exactly the rotten blocks were found: while clients write,
// some may be whole again.
func (p *pair) verified(n *simNode, calm, repair bool) bool {
	p.calm = calm
	defer func() { p.calm = false }()
	p.must(n.engine.Verify(p.now, repair))
	n.collect()
	for i := 0; n.engine.verify.active; i++ {
		if p.step(); i == 100_000 {
			p.fail("verify does not end")
		}
	}
	s := n.engine.Status()
	if strings.HasPrefix(s.Verified, "stopped") {
		return false
	}
	if int(s.Verify.Different) > len(p.rotten) || calm && int(s.Verify.Different) != len(p.rotten) {
		p.fail("verify found %d blocks, %d are rotten: %s", s.Verify.Different, len(p.rotten), s.Verified)
	}
	for b := range p.rotten {
		if calm && !n.engine.dirty.Any(b, 1) {
			p.fail("verify did not find block %d", b)
		}
	}
	return true
}
