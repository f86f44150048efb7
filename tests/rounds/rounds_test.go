// SPDX-License-Identifier: Apache-2.0

//go:build linux

package rounds

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/nbd"
	"github.com/twinbd/twinbd/tests/harness"
)

var (
	roundsFlag = flag.Int("rounds", 4, "how many rounds")
	seedFlag   = flag.Uint64("seed", 0, "what decides the rounds; 0: another each time")
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

const (
	data     = "data"
	size     = 256 << 20
	intents  = 16
	region   = 64 << 10
	patience = 30 * time.Second
	pace     = `"fast"`

	// takeover is more than a secondary waits before it takes over, at this pace.
	takeover = 1500 * time.Millisecond

	// mostAfterCrash is what a crash makes dirty beyond what the marks say.
	mostAfterCrash = intents * region
)

// story is one pair that lives through all rounds.
type story struct {
	t       *testing.T
	lab     *harness.Lab
	random  *rand.Rand
	ledger  *ledger
	primary *harness.Node
	client  *nbd.Client
}

func TestRounds(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d: repeat with -args -rounds %d -seed %d", seed, *roundsFlag, seed)
	lab := harness.NewPair(t, harness.Options{Size: size, Intents: intents, Region: "64KiB", Pace: pace})
	s := &story{t: t, lab: lab, random: rand.New(rand.NewPCG(seed, 0)), ledger: newLedger()}
	s.serveFrom(lab.Alpha)
	kinds := []func() outcome{s.loseSecondary, s.losePrimary, s.loseBoth, s.loseSource}
	for i := range *roundsFlag {
		s.ledger.newRound(s.random, size)
		// The first rounds have each kind once, so that few rounds miss none.
		kind := i
		if i >= len(kinds) {
			kind = s.random.IntN(len(kinds))
		}
		o := kinds[kind]()
		s.settle(o)
		t.Logf("round %2d: %v", i+1, o)
		s.refuseStale()
		if t.Failed() {
			t.Fatalf("round %d of seed %d", i+1, seed)
		}
	}
}

// outcome is what a round measured.
type outcome struct {
	what    string
	copied  int64         // bytes, by the resync
	dirty   int64         // blocks, before it
	service time.Duration // from the kill, or from the first start after it, to the next acknowledgement
	resync  time.Duration // from the start of who returned to a whole pair
}

func (o outcome) String() string {
	return fmt.Sprintf("%-36s copied %5d KiB, dirty %5d KiB, served after %4d ms, paired after %4d ms",
		o.what, o.copied>>10, o.dirty*blockSize>>10, o.service.Milliseconds(), o.resync.Milliseconds())
}

// serveFrom connects to a node, which is the primary now.
func (s *story) serveFrom(n *harness.Node) {
	if s.client != nil {
		s.client.Close()
	}
	s.primary, s.client = n, n.Dial(s.t, data)
}

func (s *story) secondary() *harness.Node { return s.lab.Other(s.primary) }

// load starts the writers and lets them write for a random while.
func (s *story) load(atMost time.Duration) {
	s.ledger.start(s.client, s.random.Uint64())
	s.elapse(atMost)
}

func (s *story) elapse(atMost time.Duration) {
	harness.Elapse(time.Duration(s.random.Int64N(int64(atMost))))
}

// acknowledged waits until more writes were acknowledged than were under way, and
// returns how long that took.
func (s *story) acknowledged() time.Duration {
	s.t.Helper()
	goal := s.ledger.acks.Load() + writers + 1
	return harness.WaitFor(s.t, "acknowledged writes", patience, func() error {
		if acks := s.ledger.acks.Load(); acks < goal {
			return fmt.Errorf("%d writes short; %s: %s", goal-acks, s.primary.Name, s.primary.Service(s.t).Reason)
		}
		return nil
	})
}

// bring lets a dead node return, with the writers at work or at rest, until the
// pair is whole.
func (s *story) bring(dead *harness.Node, o *outcome) {
	s.t.Helper()
	busy := s.random.IntN(2) == 0
	if !busy {
		s.quiet()
	}
	if s.random.IntN(3) == 0 { // it dies again, perhaps while it catches up
		dead.Start(s.t)
		s.elapse(100 * time.Millisecond)
		dead.Kill(s.t)
		s.primary.WaitState(s.t, control.Alone)
		o.what += ", twice"
	}
	o.dirty = s.dirty()
	before := s.primary.Volume(s.t, data).Counters.ResyncedBytes
	began := time.Now()
	dead.Start(s.t)
	s.lab.WaitPaired(s.t, s.primary)
	o.resync = time.Since(began)
	o.copied = int64(s.primary.Volume(s.t, data).Counters.ResyncedBytes - before)
	if busy {
		s.quiet()
		o.dirty = max(o.dirty, s.ledger.touchedBlocks())
		o.what += ", busy"
	}
}

// dirty counts the blocks that the primary says its peer does not have. A status
// may be a moment old; an export's metadata context is not.
func (s *story) dirty() (blocks int64) {
	s.t.Helper()
	for offset := int64(0); offset < size; {
		_, extents, err := s.client.BlockStatus(offset, size-offset, 0)
		if err != nil || len(extents) == 0 {
			s.t.Fatalf("ask %s for dirty blocks at %d: %d extents, %v", s.primary.Name, offset, len(extents), err)
		}
		for _, e := range extents {
			if e.Flags&block.ExtentDirty != 0 {
				blocks += int64(e.Length) / blockSize
			}
			offset += int64(e.Length)
		}
	}
	return blocks
}

// quiet ends the writers, none of which may have failed.
func (s *story) quiet() {
	s.t.Helper()
	if err := s.ledger.stop(); err != nil {
		s.t.Fatalf("a client of %s saw: %v", s.primary.Name, err)
	}
}

// loseSecondary: the primary goes on, its clients see a short pause.
func (s *story) loseSecondary() outcome {
	o := outcome{what: "lost the secondary " + s.secondary().Name}
	s.load(400 * time.Millisecond)
	s.secondary().Kill(s.t)
	o.service = s.acknowledged()
	s.elapse(200 * time.Millisecond)
	s.bring(s.secondary(), &o)
	return o
}

// losePrimary: the survivor takes over, and has every acknowledged write before
// the dead node returns.
func (s *story) losePrimary() outcome {
	dead, survivor := s.primary, s.secondary()
	o := outcome{what: "lost the primary " + dead.Name}
	s.load(400 * time.Millisecond)
	began := time.Now()
	dead.Kill(s.t)  // which takes as long as its disk is busy
	s.ledger.stop() // its clients have lost their server
	survivor.WaitState(s.t, control.Alone)
	s.serveFrom(survivor)
	served := time.Since(began)
	if err := s.ledger.check(s.client); err != nil {
		s.t.Fatalf("before %s returned, %s had lost writes:\n%v", dead.Name, survivor.Name, err)
	}
	s.load(200 * time.Millisecond)
	o.service = served + s.acknowledged()
	s.bring(dead, &o)
	return o
}

// loseBoth: of the nodes that return, one that has everything serves: who served
// last, or the other when that had not gone on alone.
func (s *story) loseBoth() outcome {
	o := outcome{what: "lost both, " + s.primary.Name + " served"}
	s.load(400 * time.Millisecond)
	victims := s.lab.Nodes()
	s.random.Shuffle(2, func(i, j int) { victims[i], victims[j] = victims[j], victims[i] })
	victims[0].Kill(s.t)
	if s.random.IntN(2) == 0 {
		s.elapse(60 * time.Millisecond)
	}
	victims[1].Kill(s.t)
	s.ledger.stop() // its clients have lost their server

	first, second := s.primary, s.secondary()
	if s.random.IntN(2) == 0 {
		first, second = second, first
	}
	began := time.Now()
	first.Start(s.t)
	met := s.random.IntN(2) == 0
	if met || first != s.primary {
		second.Start(s.t)
	}
	s.again(&o, began)
	return o
}

// again: a node serves once more after the primary died; the pair becomes whole.
func (s *story) again(o *outcome, began time.Time) {
	s.t.Helper()
	last := s.primary
	s.serveFrom(s.lab.WaitServing(s.t))
	o.service = time.Since(began)
	if s.primary != last {
		o.what += ", " + s.primary.Name + " serves"
	}
	if err := s.ledger.check(s.client); err != nil {
		s.t.Fatalf("%v: %s lost writes, after %s had served last:\n%v", o, s.primary.Name, last.Name, err)
	}
	o.dirty = s.ledger.touchedBlocks()
	began = time.Now()
	if !s.secondary().Running() {
		o.dirty = s.dirty()
		s.secondary().Start(s.t)
	}
	s.lab.WaitPaired(s.t, s.primary)
	o.resync = time.Since(began)
	o.copied = int64(s.primary.Volume(s.t, data).Counters.ResyncedBytes)
}

// loseSource: the primary dies while it brings the secondary up to date. Unless
// that was done, the secondary is worth nothing until the primary is back.
func (s *story) loseSource() outcome {
	o := outcome{what: "lost the source " + s.primary.Name}
	s.load(200 * time.Millisecond)
	s.secondary().Kill(s.t)
	s.acknowledged()
	s.elapse(200 * time.Millisecond)
	s.secondary().Start(s.t)
	harness.WaitFor(s.t, "the nodes to meet", patience, func() error {
		if c := s.primary.Service(s.t).Peer.Connection; c != "connected" {
			return fmt.Errorf("%s is %s", s.primary.Name, c)
		}
		return nil
	})
	s.elapse(30 * time.Millisecond)
	if s.primary.Volume(s.t, data).Resync != nil {
		o.what += ", copying"
	}
	s.primary.Kill(s.t)
	s.ledger.stop()            // its clients have lost their server
	if s.random.IntN(2) == 0 { // long enough for a takeover, by who may
		harness.Elapse(takeover)
		if c := s.secondary().Volume(s.t, data); c.Disk == "inconsistent" && s.serves(s.secondary()) {
			s.t.Errorf("%v: %s serves in the middle of a resync onto it", o, s.secondary().Name)
		}
	}
	began := time.Now()
	s.primary.Start(s.t)
	s.again(&o, began)
	return o
}

func (s *story) serves(n *harness.Node) bool {
	state := n.Service(s.t).State
	return state == control.Primary || state == control.Alone
}

// settle holds what must be so after each round.
func (s *story) settle(o outcome) {
	s.t.Helper()
	if err := s.ledger.check(s.client); err != nil {
		s.t.Errorf("%v: %s has lost writes:\n%v", o, s.primary.Name, err)
	}
	if err := s.client.Flush(); err != nil {
		s.t.Errorf("%v: flush: %v", o, err)
	}
	if most := o.dirty*blockSize + mostAfterCrash; o.copied > most {
		s.t.Errorf("%v: copied %d bytes, the marks and the intents allow %d", o, o.copied, most)
	}
	if o.copied >= size/10 {
		s.t.Errorf("%v: copied %d bytes, a tenth of the volume or more", o, o.copied)
	}
	for _, n := range s.lab.Nodes() {
		if v := n.Volume(s.t, data); v.DirtyBlocks != 0 {
			s.t.Errorf("%v: %s still has %d dirty blocks", o, n.Name, v.DirtyBlocks)
		}
	}
	s.lab.SameDisks(s.t)
}

// refuseStale lets the secondary miss one write and holds that it may then not
// serve, and says why with the epoch; the other may.
func (s *story) refuseStale() {
	s.t.Helper()
	stale := s.secondary()
	stale.Kill(s.t)
	if err := s.ledger.writeOnce(s.client, 0, s.random); err != nil {
		s.t.Fatalf("write without %s: %v", stale.Name, err)
	}
	s.primary.WaitState(s.t, control.Alone)
	s.primary.Kill(s.t)
	stale.Start(s.t)
	stale.Refused(s.t, []string{"prim", harness.Service},
		fmt.Sprintf("%s may lack acknowledged writes", stale.Name), fmt.Sprintf("%s has served %s alone since epoch", s.primary.Name, harness.Service))
	s.primary.Start(s.t)
	s.lab.WaitPaired(s.t, s.primary)
	s.serveFrom(s.primary)
	if err := s.ledger.check(s.client); err != nil {
		s.t.Errorf("%s was refused, and %s has lost writes:\n%v", stale.Name, s.primary.Name, err)
	}
	s.lab.SameDisks(s.t)
}
