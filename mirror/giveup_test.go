// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/internal/block"
)

// split makes both nodes of a script serve apart and write what own says, the
// blocks of each; then both have stopped and met. Alpha writes versions from 100,
// beta from 200.
func (s *script) split(own [2][]int64) {
	s.t.Helper()
	s.cut()
	s.arbitrated()
	s.must(s.b.engine.Promote(s.now, RightAlone, "a test", func() {}))
	s.b.collect()
	s.run()
	for i, n := range s.nodes {
		for _, at := range own[i] {
			r := s.write(n, at, 1, uint64(100*(i+1))+uint64(at))
			s.run()
			s.require(r.answered(block.OK), "acknowledged by "+n.name)
		}
	}
	for _, n := range s.nodes {
		n.engine.Demote(s.now, block.ShuttingDown, func() {})
	}
	s.collect()
	s.run()
	s.connect()
	s.run()
	for _, n := range s.nodes {
		s.require(n.engine.Status().Split, "split at "+n.name)
	}
}

// resolve gives a node's history up and lets the other serve and copy.
func (s *script) resolve(loser *simNode) {
	s.t.Helper()
	durable := false
	s.must(loser.engine.GiveUp(s.now, loser.engine.Changes(), func() { durable = true }))
	loser.collect()
	s.run()
	s.require(durable, "given up")
	s.serve(loser.peer())
}

// serve makes a node primary by the record, and connects it.
func (s *script) serve(keeper *simNode) {
	s.t.Helper()
	s.record = record{s.record.epoch + 1, keeper.id, true}
	s.holders()
	s.must(keeper.engine.Promote(s.now, RightAlone, "", func() {}))
	keeper.collect()
	s.run()
	s.connect()
	s.arbitrated()
	for _, n := range s.nodes {
		s.require(n.engine.session.state == Mirroring, "mirrored at "+n.name)
	}
}

// alike asserts that both disks hold what the keeper held.
func (s *script) alike(want []byte) {
	s.t.Helper()
	for _, n := range s.nodes {
		s.require(bytes.Equal(n.data.Snapshot(), want), "the keeper's data on "+n.name)
	}
}

// Whoever loses, the union of what both wrote is copied, and nothing else; also
// when the node that has given up loses its power before.
func TestRule11TheLoserTakesTheKeepersBlocks(t *testing.T) {
	own := [2][]int64{{0, 1, 4, 40}, {4, 8, 95}}
	for loser := range 2 {
		for _, power := range []bool{false, true} {
			t.Run(fmt.Sprintf("loser %d, power cut %t", loser, power), func(t *testing.T) {
				s := newScript(t)
				s.split(own)
				n := s.nodes[loser]
				changes := n.engine.Changes()
				s.require(changes.Blocks == int64(len(own[loser])) && !changes.Base.IsZero(), "the loser's own blocks known")
				if power {
					s.must(n.engine.GiveUp(s.now, changes, func() {}))
					n.collect()
					s.run()
					s.restart(n, true)
					s.require(n.engine.Promotable() == ErrInconsistent, "given up for good")
				}
				keeper := n.peer()
				want := keeper.data.Snapshot()
				if power {
					s.serve(keeper)
				} else {
					s.resolve(n)
				}
				s.alike(want)
				copied := keeper.engine.Status().Counters.ResyncedBytes
				s.require(copied == 6*block.Size, fmt.Sprintf("copied %d bytes: the six blocks of both", copied))
				s.require(n.header().Generation == keeper.header().Generation, "one history")
			})
		}
	}
}

// Marks that are relative to different bases, or of a disk that was rolled back,
// do not say all: every block is copied.
func TestRule11TheLoserIsCopiedWholeWhenItsMarksDoNotSayAll(t *testing.T) {
	for name, spoil := range map[string]func(s *script){
		"another base":       func(s *script) { s.b.engine.header.Base = bitmap.Generation{7} },
		"the loser is older": func(s *script) { s.a.engine.session.received.PeerMoment = 1 << 40 },
		"the keeper is older": func(s *script) {
			s.a.engine.session.sent.PeerMoment = 1 << 40
			s.a.engine.header.PeerMoment = 1 << 40
		},
		"no base": func(s *script) { s.a.engine.header.Base = bitmap.Generation{} },
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t)
			s.split([2][]int64{{0}, {8}})
			spoil(s)
			// What nobody has marked: only a full copy finds it.
			s.must(s.a.data.WriteAt(bytes.Repeat([]byte{9}, block.Size), 60*block.Size))
			want := s.b.data.Snapshot()
			s.resolve(s.a)
			s.alike(want)
			s.require(s.b.engine.Status().Counters.ResyncedBytes == simSize, "every block copied")
		})
	}
}

// Two disks that never belonged together: whoever loses has all of its blocks
// saved, and gets all of the keeper's, and its volume's name.
func TestRule11UnrelatedDisksCanBeResolved(t *testing.T) {
	for name, other := range map[string]func(h *bitmap.Header){
		"another volume":  func(h *bitmap.Header) { h.VolumeID[0]++ },
		"another history": func(h *bitmap.Header) { h.Generation, h.Ancestors = bitmap.Generation{9}, [16]bitmap.Generation{} },
	} {
		for loser := range 2 {
			t.Run(fmt.Sprintf("%s, loser %d", name, loser), func(t *testing.T) {
				s := newScript(t)
				s.write(s.a, 3, 1, 7)
				s.run()
				s.a.engine.Demote(s.now, block.ShuttingDown, func() {})
				s.a.collect()
				s.run()
				s.cut()
				other(&s.b.engine.header)
				s.must(s.b.data.WriteAt(bytes.Repeat([]byte{9}, block.Size), 60*block.Size)) // no mark says so
				s.connect()
				s.run()
				for _, n := range s.nodes {
					st := n.engine.Status()
					s.require(st.Split && st.Unrelated && st.Whole, "unrelated at "+n.name)
				}
				n := s.nodes[loser]
				changes := n.engine.Changes()
				s.require(changes.Blocks == simSize/block.Size && changes.Base.IsZero(), "all of it is saved")
				want := n.peer().data.Snapshot()
				s.resolve(n)
				s.alike(want)
				s.require(n.header().VolumeID == n.peer().header().VolumeID, "one volume")
				s.require(n.header().Generation == n.peer().header().Generation, "one history")
			})
		}
	}
}

// A history is not given up where there is no split, by a node that serves, or
// when it is not the one that was saved.
func TestGiveUpIsRefused(t *testing.T) {
	s := newScript(t)
	refused := func(n *simNode, c Changes, want error) {
		t.Helper()
		before := n.header()
		if err := n.engine.GiveUp(s.now, c, func() { t.Error("given up") }); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", n.name, err, want)
		}
		n.collect()
		s.run()
		if n.header() != before {
			t.Errorf("%s: a refusal has changed the header", n.name)
		}
	}
	refused(s.a, s.a.engine.Changes(), ErrServes)
	refused(s.b, s.b.engine.Changes(), ErrNoSplit)
	s.split([2][]int64{{0}, {8}})
	saved := s.a.engine.Changes()
	s.must(s.a.engine.Promote(s.now, RightAlone, "", func() {}))
	s.a.collect()
	s.run()
	refused(s.a, saved, ErrServes)
	s.write(s.a, 2, 1, 1)
	s.run()
	s.a.engine.Demote(s.now, block.ShuttingDown, func() {})
	s.a.collect()
	s.run()
	refused(s.a, saved, ErrChanged)
	saved = s.a.engine.Changes()
	saved.Generation = bitmap.Generation{1}
	refused(s.a, saved, ErrChanged)
	s.resolve(s.a)
	refused(s.a, s.a.engine.Changes(), ErrNoSplit)
}

// Whatever both wrote, and whenever the loser's power goes, the disks end as the
// keeper's was.
func TestRule11AnySplitEndsAlike(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 7))
		s := newScript(t)
		var own [2][]int64
		for i := range own {
			for range 1 + rng.IntN(12) {
				own[i] = append(own[i], rng.Int64N(simSize/block.Size))
			}
		}
		s.split(own)
		loser := s.nodes[rng.IntN(2)]
		want := loser.peer().data.Snapshot()
		changes := loser.engine.Changes()
		s.must(loser.engine.GiveUp(s.now, changes, func() {}))
		loser.collect()
		for range rng.IntN(6) { // tasks of the metadata, one after the other
			once := false
			s.do(loser, func(*block.Task) bool { first := !once; once = true; return first })
		}
		s.restart(loser, rng.IntN(2) == 0)
		if loser.engine.Promotable() == nil { // the power went before it was durable
			s.connect()
			s.run()
			s.require(loser.engine.Status().Split, fmt.Sprintf("seed %d: still split", seed))
			s.must(loser.engine.GiveUp(s.now, loser.engine.Changes(), func() {}))
			loser.collect()
			s.run()
		}
		s.serve(loser.peer())
		s.alike(want)
	}
}
