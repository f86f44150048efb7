// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"testing"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/internal/block"
)

// disks is what a node's two disks held.
type disks struct{ data, meta []byte }

func (n *simNode) snapshot() disks { return disks{n.data.Snapshot(), n.meta.Snapshot()} }

// putBack restores a snapshot of a node that has lost its power.
func (s *script) putBack(n *simNode, to disks) {
	s.t.Helper()
	s.kill(n, true)
	n.data.Restore(to.data)
	n.meta.Restore(to.meta)
	n.boot()
}

// settled lets the nodes be for as long as a moment lasts.
func (s *script) settled() { s.wait(momentEvery+2*TickEvery, s.run) }

// A secondary's disk that was put back to a snapshot of the same generation and
// of the same session says that nothing differs. The primary knows better.
func TestRule13ASnapshotOfTheSameGenerationIsNoEqual(t *testing.T) {
	s := newScript(t)
	s.write(s.a, 0, 1, 1)
	s.run()
	s.settled()
	old := s.b.snapshot()
	s.write(s.a, 0, 1, 2)
	s.write(s.a, 50, 1, 3)
	s.run()
	s.settled() // flushed on both: no mark is left of it anywhere
	s.require(s.a.engine.dirty.Count() == 0 && s.a.engine.Status().Intents <= 2, "in step")
	s.putBack(s.b, old)
	s.require(s.b.header().Generation == s.a.header().Generation, "of one generation")
	s.connect()
	s.run()
	s.require(s.a.engine.session.mine.Action == ActionFull && s.a.engine.session.mine.Source == "alpha", "copied whole")

	// It is cut before anything was copied: what was found out is not forgotten.
	s.cut()
	s.run()
	s.restart(s.b, true)
	s.connect()
	s.arbitrated()
	s.require(s.a.engine.session.state == Mirroring, "mirrored")
	s.require(s.b.holds(0) == 2 && s.b.holds(50) == 3, "what was written since the snapshot")
	s.alike(s.a.data.Snapshot())
}

// The same for the primary: it does not serve old blocks as if they were new.
func TestRule13APutBackPrimaryIsCopiedTo(t *testing.T) {
	s := newScript(t)
	s.settled()
	old := s.a.snapshot()
	s.write(s.a, 7, 1, 9)
	s.run()
	s.settled()
	s.cut()
	s.restart(s.b, true)
	s.putBack(s.a, old) // neither kept running: only what is stored can tell
	s.serve(s.b)
	s.require(s.a.holds(7) == 9 && s.b.holds(7) == 9, "the secondary's blocks")
}

// A target that was put back to the middle of its resync lacks what was copied
// since, though the source's marks do not say so any more.
func TestRule13APutBackTargetIsCopiedWhole(t *testing.T) {
	s := newScript(t)
	s.cut()
	s.arbitrated()
	for at := range int64(40) {
		s.write(s.a, 2*at, 1, uint64(100+at))
		s.run()
	}
	s.connect()
	for s.b.engine.session.state != Resyncing {
		s.do(s.a, nil)
		s.do(s.b, nil)
		s.deliver(s.a)
		s.deliver(s.b)
	}
	old := s.b.snapshot()
	s.require(s.b.header().State == bitmap.Inconsistent, "an unfinished target")
	s.arbitrated()
	s.require(s.a.engine.session.state == Mirroring && s.a.engine.dirty.Count() == 0, "mirrored")
	want := s.a.data.Snapshot()
	s.cut()
	s.putBack(s.b, old)
	s.require(s.b.header().State == bitmap.Inconsistent, "put back")
	s.a.engine.Demote(s.now, block.ShuttingDown, func() {})
	s.a.collect()
	s.run()
	s.serve(s.a)
	s.alike(want)
}

// Meeting again and again does not make a disk that was put back look newer; and
// an idle pair writes no headers.
func TestMomentsAreCountedOnlyTogether(t *testing.T) {
	s := newScript(t)
	s.settled()
	s.settled()
	before := [2]bitmap.Header{s.a.header(), s.b.header()}
	s.settled()
	s.settled()
	s.require(before == [2]bitmap.Header{s.a.header(), s.b.header()}, "quiet")
	s.require(s.a.header().PeerMoment == s.b.header().Moment && s.b.header().PeerMoment == s.a.header().Moment, "told")
	s.cut()
	s.arbitrated()
	for range 5 {
		s.connect()
		s.deliver(s.a)
		s.cut()
		s.run()
		s.restart(s.b, true)
	}
	s.require(s.b.header().Moment == before[1].Moment, "not counted without having met")
}

// One bad sector under the newest header brings no older state back: after each
// change that something relies on, both copies say the same.
func TestRule13ALostHeaderRevivesNothing(t *testing.T) {
	rot := func(s *script, n *simNode) {
		s.t.Helper()
		md := n.stored()[0]
		s.kill(n, true)
		n.meta.FlipBit(bitmap.HeaderOffset(md.Sequence)+100, 3)
		n.keeps = true
		n.boot()
		n.engine.Tick(s.now) // it repairs itself before it meets anybody
		n.collect()
		s.do(n, nil)
		for s.do(n, nil) > 0 {
		}
	}
	for name, c := range map[string]struct {
		reach func(s *script) *simNode
		holds func(h bitmap.Header) bool
	}{
		"inconsistent": {func(s *script) *simNode {
			s.cut()
			s.arbitrated()
			s.write(s.a, 0, 1, 1)
			s.run()
			s.connect()
			for s.b.engine.session.state != Resyncing {
				s.do(s.a, nil)
				s.do(s.b, nil)
				s.deliver(s.a)
				s.deliver(s.b)
			}
			return s.b
		}, func(h bitmap.Header) bool { return h.State == bitmap.Inconsistent }},
		"alone": {func(s *script) *simNode {
			s.cut()
			s.arbitrated()
			r := s.write(s.a, 0, 1, 1)
			s.run()
			s.require(r.answered(block.OK), "acknowledged alone")
			return s.a
		}, func(h bitmap.Header) bool { return !h.Base.IsZero() && h.Generation != h.Base }},
		"failed": {func(s *script) *simNode {
			s.b.data.FailNext(block.Write, 1, block.IOError)
			s.write(s.a, 0, 1, 1)
			s.run()
			s.require(s.b.engine.local == diskFailed, "failed")
			return s.b
		}, func(h bitmap.Header) bool { return h.State == bitmap.Failed }},
		"given up": {func(s *script) *simNode {
			s.split([2][]int64{{0}, {8}})
			s.must(s.a.engine.GiveUp(s.now, s.a.engine.Changes(), func() {}))
			s.a.collect()
			s.run()
			return s.a
		}, func(h bitmap.Header) bool { return h.State == bitmap.Inconsistent }},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t)
			n := c.reach(s)
			s.require(c.holds(n.header()), "reached")
			for range 2 { // and again: the copy that was left is repaired, not lived upon
				rot(s, n)
				s.require(c.holds(n.header()), "still so with the newest header gone")
			}
		})
	}
}
