// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"slices"
	"testing"

	"github.com/twinbd/twinbd/bitmap"
)

// Generations for tests: a chain g1 → g2 → g3, and what came of g1 elsewhere.
var (
	g1 = bitmap.Generation{1}
	g2 = bitmap.Generation{2}
	g3 = bitmap.Generation{3}
	h2 = bitmap.Generation{0xf2}
)

// histories are what a node can know: generation, base, ancestors.
var histories = []struct {
	generation, base bitmap.Generation
	ancestors        []bitmap.Generation
}{
	{generation: g1},
	{generation: g2, base: g1, ancestors: []bitmap.Generation{g1}},
	{generation: g2, ancestors: []bitmap.Generation{g1}},
	{generation: g3, base: g2, ancestors: []bitmap.Generation{g2, g1}},
	{generation: h2, base: g1, ancestors: []bitmap.Generation{g1}},
	{generation: bitmap.Generation{9}},
}

// hellos are all that node can say within small bounds.
func hellos(node, peer string) []Hello {
	var all []Hello
	for state := bitmap.Blank; state <= bitmap.Failed; state++ {
		for _, h := range histories {
			for bits := range 1 << 5 {
				x := Hello{
					Node: node, Peer: peer, VolumeID: [16]byte{7}, State: state.String(), Moment: 5, PeerMoment: 5,
					Generation: h.generation, Base: h.base, Ancestors: h.ancestors,
					Primary: bits&1 != 0, KeptInStep: bits&2 != 0,
				}
				if bits&4 != 0 {
					x.DirtyBlocks = 3
				}
				if bits&8 != 0 {
					x.PeerMoment = 6 // it has seen more of the peer than the peer has
				}
				if bits&16 != 0 {
					x.Holder, x.Number = true, uint64(bits&3)
				}
				if state == bitmap.Inconsistent {
					x.Intended, x.Generation = x.Generation, g1
				}
				all = append(all, x)
			}
		}
	}
	return all
}

// TestDecideEveryPair holds Decide to what must never happen, whatever the two
// nodes say.
func TestDecideEveryPair(t *testing.T) {
	as, bs := hellos("alpha", "beta"), hellos("beta", "alpha")
	pairs := 0
	for _, a := range as {
		for _, b := range bs {
			pairs++
			v := Decide(a, b)
			if w := Decide(b, a); !v.Same(w) {
				t.Fatalf("not mirrored: %+v and %+v\n%+v\n%+v", v, w, a, b)
			}
			if wrong := forbidden(a, b, v); wrong != "" {
				t.Fatalf("%s: %+v\n%+v\n%+v", wrong, v, a, b)
			}
		}
	}
	t.Logf("%d pairs", pairs)
}

// forbidden says what is wrong with a verdict, or nothing.
func forbidden(a, b Hello, v Verdict) string {
	source, target := a, b
	if v.Source == b.Node {
		source, target = b, a
	}
	knows := func(x, y Hello) bool {
		return x.Generation == y.Generation || slices.Contains(x.Ancestors, y.Generation)
	}
	copies := v.Action == ActionResync || v.Action == ActionFull
	switch {
	case v.Reason == "":
		return "no reason is given"
	case copies && v.Source != a.Node && v.Source != b.Node:
		return "no source"
	case copies && target.Primary:
		return "a primary is overwritten"
	case copies && !hasData(source):
		return "the source has no data"
	case copies && stateOf(target) == bitmap.Failed:
		return "a failed disk is written"
	case copies && hasData(target) && !knows(source, target) && !(rolledBack(target, source) && knows(source, target)):
		return "a history is overwritten that the source does not contain"
	case v.Action == ActionResync && hasData(target) && target.Generation != source.Generation && target.Generation != source.Base:
		return "the source's marks are not relative to the target"
	case v.Action == ActionResync && stateOf(target) == bitmap.Inconsistent && target.Intended != source.Generation && target.Intended != source.Base,
		v.Action == ActionResync && stateOf(target) == bitmap.Blank && source.Base != blankGeneration,
		v.Action == ActionResync && stateOf(target) == bitmap.Fresh:
		return "the source does not know what the target has"
	case v.Action == ActionMirror && (a.DirtyBlocks > 0 || b.DirtyBlocks > 0):
		return "marks are dropped"
	case (v.Action == ActionMirror || v.Action == ActionResync) && (rolledBack(a, b) || rolledBack(b, a)):
		return "a disk that was put back is believed"
	case v.Action == ActionMirror && (a.Generation != b.Generation || !hasData(a) || !hasData(b)):
		return "different disks are called equal"
	case v.Action == ActionHost && (hasData(target) || !target.Primary || !hasData(source) || !knows(source, target)):
		return "hosted without need or without the data"
	case a.Primary && b.Primary && v.Action != ActionSplit:
		return "two primaries"
	case hasData(a) && hasData(b) && !knows(a, b) && !knows(b, a) && copies:
		return "a split is guessed"
	}
	return ""
}

// TestDecide has the named cases: integrity.md R11 as design.md rule 22 amends
// it, and what this implementation adds.
func TestDecide(t *testing.T) {
	base := func(node, peer string) Hello {
		return Hello{
			Node: node, Peer: peer, VolumeID: [16]byte{7}, State: "consistent", Generation: g2,
			Ancestors: []bitmap.Generation{g1}, Moment: 5, PeerMoment: 5,
		}
	}
	older := func(h *Hello) { h.Generation, h.Ancestors = g1, nil }
	for _, c := range []struct {
		name string
		with func(a, b *Hello)
		want Verdict
	}{
		{"nothing differs", func(a, b *Hello) {}, Verdict{Action: ActionMirror}},
		{"a link flap while one serves", func(a, b *Hello) { a.Primary, a.KeptInStep, b.KeptInStep = true, true, true }, Verdict{Action: ActionMirror}},
		{"marks are left: the primary is the source", func(a, b *Hello) { a.Primary, b.DirtyBlocks, b.KeptInStep = true, 1, true }, Verdict{ActionResync, "alpha", ""}},
		{"marks are left: who kept running in step", func(a, b *Hello) { b.KeptInStep, a.Holder, a.DirtyBlocks = true, true, 1 }, Verdict{ActionResync, "beta", ""}},
		{"marks are left: the record's holder", func(a, b *Hello) { b.Holder, a.LastPrimary, a.DirtyBlocks = true, true, 1 }, Verdict{ActionResync, "beta", ""}},
		{"marks are left: the newer record's holder", func(a, b *Hello) {
			a.Holder, a.Number, a.LastPrimary, b.Holder, b.Number, a.DirtyBlocks = true, 2, true, true, 4, 1
		}, Verdict{ActionResync, "beta", ""}},
		{"marks are left: the newer record names the other", func(a, b *Hello) {
			b.Number, b.LastPrimary, a.DirtyBlocks = 4, true, 1
		}, Verdict{ActionResync, "alpha", ""}},
		{"marks are left: the last primary", func(a, b *Hello) { b.LastPrimary, b.DirtyBlocks = true, 1 }, Verdict{ActionResync, "beta", ""}},
		{"marks are left: by name", func(a, b *Hello) { b.DirtyBlocks = 1 }, Verdict{ActionResync, "alpha", ""}},
		{"one went on alone", func(a, b *Hello) { older(b); a.Base = g1 }, Verdict{ActionResync, "alpha", ""}},
		{"one went on alone, the other is two behind", func(a, b *Hello) {
			older(b)
			a.Generation, a.Base, a.Ancestors = g3, g2, []bitmap.Generation{g2, g1}
		}, Verdict{ActionFull, "alpha", ""}},
		{"the newer is not the one that serves", func(a, b *Hello) { older(b); a.Base, b.Primary = g1, true }, Verdict{Action: ActionSplit}},
		{"both went on alone", func(a, b *Hello) { b.Generation, a.Base, b.Base = h2, g1, g1 }, Verdict{Action: ActionSplit}},
		{"both serve", func(a, b *Hello) { a.Primary, b.Primary = true, true }, Verdict{Action: ActionSplit}},
		{"nothing in common", func(a, b *Hello) { b.Generation, b.Ancestors = h2, nil }, Verdict{Action: ActionUnrelated}},
		{"common only in having been blank", func(a, b *Hello) {
			a.Ancestors, b.Ancestors, b.Generation = []bitmap.Generation{blankGeneration}, []bitmap.Generation{blankGeneration}, h2
		}, Verdict{Action: ActionUnrelated}},
		{"two volumes", func(a, b *Hello) { b.VolumeID[0]++ }, Verdict{Action: ActionUnrelated}},
		{"interrupted resync", func(a, b *Hello) {
			older(b)
			b.State, b.Intended, a.Base, a.DirtyBlocks = "inconsistent", g2, g1, 9
		}, Verdict{ActionResync, "alpha", ""}},
		{"interrupted full resync goes on where it was", func(a, b *Hello) {
			b.State, b.Intended, b.Generation, b.Ancestors = "inconsistent", g2, bitmap.Generation{}, nil
		}, Verdict{ActionResync, "alpha", ""}},
		{"finish was lost, and the source went on alone", func(a, b *Hello) {
			older(b)
			b.State, b.Intended = "inconsistent", g2
			a.Generation, a.Base, a.Ancestors = g3, g2, []bitmap.Generation{g2, g1}
		}, Verdict{ActionResync, "alpha", ""}},
		{"finished was lost, and the source went on alone", func(a, b *Hello) {
			a.Generation, a.Base, a.Ancestors = g3, g2, []bitmap.Generation{g2, g1}
		}, Verdict{ActionResync, "alpha", ""}},
		{"interrupted resync from somebody else", func(a, b *Hello) { b.State, b.Intended = "inconsistent", h2 }, Verdict{ActionFull, "alpha", ""}},
		{"a fresh disk", func(a, b *Hello) {
			b.State, b.Generation, b.Ancestors, b.VolumeID = "fresh", bitmap.Generation{}, nil, [16]byte{}
		}, Verdict{ActionFull, "alpha", ""}},
		{"a blank disk, and all written since is marked", func(a, b *Hello) {
			b.State, b.Generation, b.Ancestors, b.VolumeID = "blank", blankGeneration, nil, [16]byte{}
			a.Base, a.Ancestors = blankGeneration, []bitmap.Generation{blankGeneration}
		}, Verdict{ActionResync, "alpha", ""}},
		{"two blank disks", func(a, b *Hello) { a.State, b.State = "blank", "blank" }, Verdict{Action: ActionWait}},
		{"two interrupted targets", func(a, b *Hello) { a.State, b.State = "inconsistent", "inconsistent" }, Verdict{Action: ActionWait}},
		{"a failed disk serves through its peer", func(a, b *Hello) { a.State, a.Primary = "failed", true }, Verdict{ActionHost, "beta", ""}},
		{"a failed disk, and the peer is behind", func(a, b *Hello) { a.State, a.Primary = "failed", true; older(b) }, Verdict{Action: ActionWait}},
		{"a failed disk that does not serve", func(a, b *Hello) { a.State = "failed" }, Verdict{Action: ActionWait}},
		{"two failed disks", func(a, b *Hello) { a.State, b.State, a.Primary = "failed", "failed", true }, Verdict{Action: ActionWait}},
		{"a state of a later version", func(a, b *Hello) { a.State = "crystalline" }, Verdict{Action: ActionWait}},
		{"rolled back", func(a, b *Hello) { older(a); a.Moment, b.Base = 4, g1 }, Verdict{ActionFull, "beta", ""}},
		{"rolled back, with the same generation", func(a, b *Hello) { a.Moment = 4 }, Verdict{ActionFull, "beta", ""}},
		{"rolled back, and serves", func(a, b *Hello) { a.Moment, a.Primary = 4, true }, Verdict{Action: ActionSplit}},
		{"rolled back, and written since", func(a, b *Hello) { a.Moment, a.Generation, a.Base = 4, h2, g1 }, Verdict{Action: ActionSplit}},
		{"rolled back to the middle of a resync", func(a, b *Hello) {
			a.Moment, a.State, a.Intended, a.Generation, a.Ancestors = 4, "inconsistent", g2, g1, nil
		}, Verdict{ActionFull, "beta", ""}},
		{"rolled back, and only the other's resync was interrupted", func(a, b *Hello) { a.Moment, b.State = 4, "inconsistent" }, Verdict{Action: ActionWait}},
		{"both rolled back, one of them to the middle of a resync", func(a, b *Hello) { a.Moment, b.Moment, b.State = 4, 4, "inconsistent" }, Verdict{ActionFull, "alpha", ""}},
		{"both rolled back", func(a, b *Hello) { a.Moment, b.Moment = 4, 4 }, Verdict{Action: ActionSplit}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := base("alpha", "beta"), base("beta", "alpha")
			c.with(&a, &b)
			for _, got := range []Verdict{Decide(a, b), Decide(b, a)} {
				if !got.Same(c.want) {
					t.Errorf("got %s %s (%s), want %s %s", got.Action, got.Source, got.Reason, c.want.Action, c.want.Source)
				}
			}
		})
	}
}
