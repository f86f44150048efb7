// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"fmt"
	"slices"

	"github.com/twinbd/twinbd/bitmap"
)

// Hello is what a node says of itself when it meets its peer; the decision is
// made from the two Hellos as they were sent, never from later values. It
// travels as JSON, so that versions can add to it.
type Hello struct {
	Version    int      // of the protocol, the newest that the node speaks
	MinVersion int      // the oldest
	Features   []string // what it can do beyond the version
	Cluster    string
	Volume     string
	Node       string
	Peer       string // whom it expects

	Proposal    uint32 // half of the session's number
	Incarnation uint64 // of the process

	VolumeID    [16]byte
	Size        int64
	State       string // of the disk's content, bitmap.State
	Generation  bitmap.Generation
	Base        bitmap.Generation
	Intended    bitmap.Generation // of the source of a resync that has not finished
	Ancestors   []bitmap.Generation
	Moment      uint64 // only ever grows, see moment.go
	PeerMoment  uint64 // the peer's, as it told last
	DirtyBlocks int64

	Primary     bool   // serves now
	KeptInStep  bool   // this process was in step when it last saw the peer
	Number      uint64 // epoch of the record, as last seen, or of a promise above it
	Holder      bool   // that names it
	LastPrimary bool   // was the last to serve, as far as it knows
}

// blankGeneration stands for the content of a disk that was proven to read as
// zeroes: the one history that disks share without ever having met.
var blankGeneration = bitmap.Generation{'b', 'l', 'a', 'n', 'k'}

// Action is what two nodes do that have met.
type Action string

// The actions.
const (
	ActionMirror    Action = "mirror"    // nothing differs
	ActionResync    Action = "resync"    // copy the dirty blocks from Source
	ActionFull      Action = "full"      // copy every block from Source
	ActionHost      Action = "host"      // Source carries out requests for a primary whose disk failed
	ActionWait      Action = "wait"      // nothing to do yet: nobody has data, or a disk failed
	ActionSplit     Action = "split"     // both have writes that the other lacks
	ActionUnrelated Action = "unrelated" // the disks never belonged together
)

// Verdict is the outcome of Decide; both nodes must come to the same.
type Verdict struct {
	Action Action
	Source string // node, for resync, full and host
	Reason string // for people; not compared
}

// Same reports whether two nodes came to the same conclusion.
func (v Verdict) Same(o Verdict) bool { return v.Action == o.Action && v.Source == o.Source }

// Decide is what follows from two Hellos (rule 11; integrity.md R11 as changed
// by rule 22). It is pure and mirrored: Decide(a, b) and Decide(b, a) agree. A
// split is never guessed.
func Decide(a, b Hello) Verdict {
	va, vb := stateOf(a), stateOf(b)
	switch {
	case a.VolumeID != b.VolumeID && a.VolumeID != [16]byte{} && b.VolumeID != [16]byte{}:
		return Verdict{ActionUnrelated, "", "the two disks belong to different volumes"}
	case a.Primary && b.Primary:
		return Verdict{ActionSplit, "", "both nodes serve"}
	case va == bitmap.Failed || vb == bitmap.Failed:
		return decideFailed(a, b)
	case rolledBack(a, b) && rolledBack(b, a):
		return decideBothBack(a, b)
	case rolledBack(a, b) && parted(a, b), rolledBack(b, a) && parted(b, a):
		return Verdict{ActionSplit, "", "a disk is older than what the other has seen of it, and was written since"}
	case rolledBack(a, b):
		return full(b, a, fmt.Sprintf("the disk of %s is older than what %s has seen of it", a.Node, b.Node))
	case rolledBack(b, a):
		return full(a, b, fmt.Sprintf("the disk of %s is older than what %s has seen of it", b.Node, a.Node))
	case !hasData(a) && !hasData(b):
		return decideEmpty(a, b)
	case !hasData(b):
		return onto(a, b)
	case !hasData(a):
		return onto(b, a)
	}
	return decideData(a, b)
}

// decideBothBack: each disk is older than what the other has seen of it.
func decideBothBack(a, b Hello) Verdict {
	const both = "both disks are older than what the other has seen"
	switch {
	case hasData(a) && hasData(b):
		return Verdict{ActionSplit, "", both}
	case hasData(a):
		return full(a, b, both)
	case hasData(b):
		return full(b, a, both)
	}
	return decideEmpty(a, b)
}

// decideData: both disks hold a whole history.
func decideData(a, b Hello) Verdict {
	switch {
	case a.Generation == b.Generation:
		return decideEqual(a, b)
	case newer(a, b) && !newer(b, a):
		return onto(a, b)
	case newer(b, a) && !newer(a, b):
		return onto(b, a)
	case related(a, b):
		return Verdict{ActionSplit, "", "both disks have writes that the other lacks"}
	}
	return Verdict{ActionUnrelated, "", "the two disks have no history in common"}
}

// decideEqual: one history. Marks that are left are reconciled, never dropped.
func decideEqual(a, b Hello) Verdict {
	if a.DirtyBlocks == 0 && b.DirtyBlocks == 0 || mutated("marks that are left are copied") {
		return Verdict{ActionMirror, "", "nothing differs"}
	}
	s, why := preferred(a, b)
	return Verdict{ActionResync, s.Node, "same generation with marked blocks; " + why}
}

// preferred chooses between equal generations (rule 22).
func preferred(a, b Hello) (Hello, string) {
	for _, c := range [...]struct {
		is  func(h, other Hello) bool
		why string
	}{
		{func(h, _ Hello) bool { return h.Primary }, "it serves"},
		{func(h, _ Hello) bool { return h.KeptInStep && !mutated("who kept running in step is preferred") }, "it kept running in step"},
		{holds, "the record names it"},
		{func(h, _ Hello) bool { return h.LastPrimary }, "it was the last primary"},
	} {
		switch {
		case c.is(a, b) && !c.is(b, a):
			return a, c.why
		case c.is(b, a) && !c.is(a, b):
			return b, c.why
		}
	}
	if a.Node < b.Node {
		return a, "by name"
	}
	return b, "by name"
}

// holds: the record names it, as the one knows who knows the newer one.
func holds(h, other Hello) bool {
	if h.Number < other.Number && !mutated("the newer record decides") {
		return !other.Holder
	}
	return h.Holder
}

// decideEmpty: neither disk holds a whole history.
func decideEmpty(a, b Hello) Verdict {
	switch {
	case a.Primary || b.Primary:
		return Verdict{ActionWait, "", "a primary without data"}
	case stateOf(a) == bitmap.Inconsistent || stateOf(b) == bitmap.Inconsistent:
		return Verdict{ActionWait, "", "neither disk is consistent: each was the target of a resync"}
	}
	return Verdict{ActionWait, "", "neither disk has data yet: choose one with `twinbd prim`"}
}

// decideFailed: a disk that has failed takes no part, but its node may serve
// through the peer.
func decideFailed(a, b Hello) Verdict {
	if stateOf(b) == bitmap.Failed {
		a, b = b, a
	}
	switch {
	case stateOf(b) == bitmap.Failed:
		return Verdict{ActionWait, "", "both disks have failed"}
	case a.Primary && hasData(b) && newerOrSame(b, a):
		return Verdict{ActionHost, b.Node, fmt.Sprintf("the disk of %s has failed, it serves from %s", a.Node, b.Node)}
	}
	if !hasData(b) || !newerOrSame(b, a) {
		return Verdict{ActionWait, "", fmt.Sprintf("the disk of %s has failed, and %s may lack writes that it holds", a.Node, b.Node)}
	}
	return Verdict{ActionWait, "", fmt.Sprintf("the disk of %s has failed: replace it and run `twinbd create`", a.Node)}
}

// onto: source is newer than target, or target has nothing.
func onto(source, target Hello) Verdict {
	if target.Primary {
		return Verdict{ActionSplit, "", fmt.Sprintf("%s serves although %s has newer data", target.Node, source.Node)}
	}
	if g := missesSince(target); !g.IsZero() && (g == source.Base || g == source.Generation) {
		return Verdict{ActionResync, source.Node, fmt.Sprintf("%s has what %s missed", source.Node, target.Node)}
	}
	return full(source, target, fmt.Sprintf("%s does not know which blocks %s lacks", source.Node, target.Node))
}

// missesSince is the generation to which the source's marks must be relative if
// they are to say all that the target lacks. A target that was interrupted has
// all of the generation that it was on the way to but what is still marked there.
func missesSince(target Hello) bitmap.Generation {
	switch stateOf(target) {
	case bitmap.Consistent:
		return target.Generation
	case bitmap.Inconsistent:
		return target.Intended
	case bitmap.Blank:
		return blankGeneration
	}
	return bitmap.Generation{}
}

func full(source, target Hello, why string) Verdict {
	switch {
	case target.Primary:
		return Verdict{ActionSplit, "", why + ", and " + target.Node + " serves"}
	case !hasData(source):
		return Verdict{ActionWait, "", why + ", and " + source.Node + " has no data"}
	}
	return Verdict{ActionFull, source.Node, why}
}

// stateOf maps the state's name back; an unknown one, of a newer version, is
// as little use as a failed disk.
func stateOf(h Hello) bitmap.State {
	for s := bitmap.Blank; s <= bitmap.Failed; s++ {
		if s.String() == h.State {
			return s
		}
	}
	return bitmap.Failed
}

func hasData(h Hello) bool { return stateOf(h) == bitmap.Consistent }

// newer reports whether a's history contains b's.
func newer(a, b Hello) bool { return slices.Contains(a.Ancestors, b.Generation) }

// parted reports whether a has a history that b does not know.
func parted(a, b Hello) bool { return hasData(a) && a.Generation != b.Generation && !newer(b, a) }

func newerOrSame(a, b Hello) bool { return a.Generation == b.Generation || newer(a, b) }

// related reports whether the histories have a common part.
func related(a, b Hello) bool {
	if newer(a, b) || newer(b, a) {
		return true
	}
	for _, g := range a.Ancestors {
		if g != blankGeneration && slices.Contains(b.Ancestors, g) {
			return true
		}
	}
	return false
}

// rolledBack reports whether b was told a later moment than a knows: a's disk or
// its metadata was restored from a copy. What it says of itself is not to be
// believed then, nor that it lacks only what it was about to get.
func rolledBack(a, b Hello) bool {
	began := stateOf(a) == bitmap.Consistent || stateOf(a) == bitmap.Inconsistent
	return b.PeerMoment > a.Moment && began && a.VolumeID == b.VolumeID && a.VolumeID != [16]byte{}
}
