// SPDX-License-Identifier: Apache-2.0

package bitmap

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The limits of a header's fields, in bytes of UTF-8 or in number.
const (
	MaxName      = 64
	MaxDiskID    = 255
	MaxForced    = 128
	MaxReason    = 255
	MaxAncestors = 16
)

// The ways in which a metadata area can be unusable that a caller may want to
// tell apart.
var (
	// ErrVersion: the format is one that this program does not know.
	ErrVersion = errors.New("written by a newer twinbd; upgrade this node")

	// ErrNone: there is no metadata where it was looked for, or its making was
	// interrupted.
	ErrNone = errors.New("no metadata here; make it with `twinbd create`")

	// ErrForeign: the metadata is of another volume, node or disk.
	ErrForeign = errors.New("metadata is not of this volume on this node")
)

// State says what a copy of the volume is worth.
type State uint8

// The states of a copy. Zero is none of them, so that zeroes are never taken
// for a state.
const (
	Blank        State = iota + 1 // never initialised, and proven to read as zeroes
	Fresh                         // never initialised, content unknown
	Inconsistent                  // a resync into it has begun and not ended: it must not serve
	Consistent                    // the content of some moment of its generation
	Failed                        // the disk has failed: nothing it holds is believed
)

func (s State) String() string {
	switch s {
	case Blank:
		return "blank"
	case Fresh:
		return "fresh"
	case Inconsistent:
		return "inconsistent"
	case Consistent:
		return "consistent"
	case Failed:
		return "failed"
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// Header is all that a node durably knows of its copy of a volume, beside
// which blocks are dirty. Headers can be compared with ==. What authorises a
// behaviour is durable here before the behaviour.
type Header struct {
	Cluster, Service, Volume string // Service may be empty
	Node, Peer               string
	VolumeID                 [16]byte // zero until the first primary names the volume

	// DiskID is what the disk was when the metadata was made: of a file its
	// file system and inode, of a block device serial or WWN and size.
	DiskID string

	Size        int64 // bytes of the volume
	RegionSize  int64 // bytes that one intent covers
	IntentLimit int   // intents that may be set

	// Salt is drawn when the area is formatted. It is in every other structure
	// of the area, so that one left over from before is not believed.
	Salt uint64

	State       State
	Generation  Generation               // of the content; zero before the first
	Base        Generation               // the one at which the peer's copy parted, to which the dirty bits are relative; zero when in step
	Intended    Generation               // of the source of the resync into this copy; zero when there is none
	Ancestors   [MaxAncestors]Generation // of Generation, newest first, then zero
	Generations uint64                   // how many there were: for people

	LastPrimary bool // this node served the volume last, as far as it knows
	Serving     bool // it serves now: if it crashes, it may hold writes that nobody else has

	// Moment is raised while both nodes have the same, and then told to the peer,
	// which keeps it as PeerMoment: a disk whose moment is before what the peer
	// was told has been put back to a copy of itself.
	Moment, PeerMoment uint64

	ResyncID uint64 // of the last resync begun or ended: its last message may be repeated

	Forced string // who forced this copy to serve, and when; empty if nobody did
	Reason string // why State is Failed, for people
}

// Layout is where everything is in the header's metadata area.
func (h *Header) Layout() (Layout, error) {
	return NewLayout(h.Size, h.RegionSize, h.IntentLimit)
}

// Advance makes next the generation, and the one that was an ancestor.
func (h *Header) Advance(next Generation) {
	if !h.Generation.IsZero() {
		copy(h.Ancestors[1:], h.Ancestors[:])
		h.Ancestors[0] = h.Generation
	}
	h.Generation = next
	h.Generations++
}

// Descends reports whether g, which is not zero, is among the ancestors.
func (h *Header) Descends(g Generation) bool {
	if g.IsZero() {
		return false
	}
	for _, a := range h.Ancestors {
		if a == g {
			return true
		}
	}
	return false
}

// Validate returns an error that names the first field that cannot be stored.
// Forced and Reason are never too long: they are cut where they are stored.
func (h *Header) Validate() error {
	if _, err := h.Layout(); err != nil {
		return err
	}
	if h.State < Blank || h.State > Failed {
		return fmt.Errorf("%v is not known", h.State)
	}
	for _, n := range []struct {
		what, text string
		most       int
		optional   bool
	}{
		{"cluster", h.Cluster, MaxName, false},
		{"service", h.Service, MaxName, true},
		{"volume", h.Volume, MaxName, false},
		{"node", h.Node, MaxName, false},
		{"peer", h.Peer, MaxName, false},
		{"disk", h.DiskID, MaxDiskID, false},
	} {
		if err := checkText(n.text, n.most); err != nil {
			return fmt.Errorf("name of the %s %w", n.what, err)
		}
		if n.text == "" && !n.optional {
			return fmt.Errorf("name of the %s is empty", n.what)
		}
	}
	return checkAncestors(h.Ancestors)
}

// Matches compares the header that was found with what the configuration and
// the opened disk say it should be: names, disk and geometry of want, nothing
// else. The error wraps ErrForeign and says what differs and what to do.
func (h *Header) Matches(want *Header) error {
	for _, n := range []struct{ what, found, want, remedy string }{
		{"cluster", h.Cluster, want.Cluster, "check `cluster` and the disk's path"},
		{"volume", h.Volume, want.Volume, "check the disk's path"},
		{"node", h.Node, want.Node, "the disks were swapped between the nodes, or the node was renamed"},
		{"peer", h.Peer, want.Peer, "a node was renamed: name it back, or make this copy anew with `twinbd create`"},
		{"disk", h.DiskID, want.DiskID, "the disk was replaced, cloned or restored: put the right one back, or make this copy anew with `twinbd create`"},
		{"size", fmt.Sprint(h.Size), fmt.Sprint(want.Size), "set `size` to what it was; to grow the volume use `twinbd resize`"},
		{"region size", fmt.Sprint(h.RegionSize), fmt.Sprint(want.RegionSize), "set `region` to what it was"},
		{"limit of intents", fmt.Sprint(h.IntentLimit), fmt.Sprint(want.IntentLimit), "set `intents` to what it was"},
	} {
		if n.found != n.want {
			return fmt.Errorf("%w: its %s is %q, expected %q; %s", ErrForeign, n.what, n.found, n.want, n.remedy)
		}
	}
	return nil
}

func checkText(s string, most int) error {
	switch {
	case len(s) > most:
		return fmt.Errorf("has %d bytes, at most %d are allowed", len(s), most)
	case !utf8.ValidString(s):
		return errors.New("is not valid UTF-8")
	case strings.ContainsFunc(s, unicode.IsControl):
		return errors.New("has control characters")
	}
	return nil
}

// checkAncestors holds the rule that the zero generation ends the list.
func checkAncestors(list [MaxAncestors]Generation) error {
	for i := 1; i < len(list); i++ {
		if list[i-1].IsZero() && !list[i].IsZero() {
			return fmt.Errorf("ancestor %d follows the end of the list", i)
		}
	}
	return nil
}

// clip makes a text for people storable: valid, on one line, not too long.
func clip(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	for len(s) > most {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return s
}
