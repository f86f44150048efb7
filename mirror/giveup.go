// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"errors"
	"time"

	"github.com/twinbd/twinbd/bitmap"
)

// The end of a split (rule 11), or of a meeting of two disks that never belonged
// together: the operator has chosen, and the node that loses gives its history up.
// Nothing is copied before, and nothing is decided here:
// the next meeting finds a node whose disk is not whole, and a source.

var (
	// ErrNoSplit: when the nodes last compared what they have, it was no split,
	// or they have not compared it yet.
	ErrNoSplit = errors.New("when the nodes last met it was no split")

	// ErrChanged: the node has served since its changes were asked for.
	ErrChanged = errors.New("this node has served since its changes were looked at")
)

// Changes is what a node may have written that its peer does not have.
type Changes struct {
	Runs       []bitmap.Run // of blocks, ascending, apart
	Blocks     int64        // in all of them
	VolumeID   [16]byte
	Generation bitmap.Generation
	Base       bitmap.Generation // to which the runs are relative; zero: to nothing that is known

	served uint64 // how often the node had served
	whole  bool   // every block, because marks say nothing of what differs
}

// maxChangesRun bounds one run: 1 GiB.
const maxChangesRun = 1 << 18

// Changes returns what this node has written since it parted from its peer. It
// is for the end of a split, and is as long as the dirty blocks are scattered. It
// is every block where the disks have no history in common, and where one of them
// was put back to an older copy of itself: all of it will be overwritten.
func (e *Engine) Changes() Changes {
	h := &e.header
	c := Changes{
		Blocks: e.dirty.Count(), VolumeID: h.VolumeID, Generation: h.Generation, Base: h.Base,
		served: e.served, whole: e.session.whole(),
	}
	if c.whole {
		c.Blocks, c.Base = e.dirty.Blocks(), bitmap.Generation{}
		for at := int64(0); at < c.Blocks; at += maxChangesRun {
			c.Runs = append(c.Runs, bitmap.Run{First: at, Count: min(maxChangesRun, c.Blocks-at)})
		}
		return c
	}
	for at := int64(0); ; {
		first, count, ok := e.dirty.Next(at, maxChangesRun)
		if !ok {
			return c
		}
		c.Runs = append(c.Runs, bitmap.Run{First: first, Count: count})
		at = first + count
	}
}

// GiveUp makes this node's copy inconsistent, for good, in favour of the peer's;
// then is called when that is durable. c is what was saved of it. The caller has
// the operator's word.
//
// The copy is the content of the base and, in the dirty blocks, something else.
// It says so as a target whose resync towards the base was interrupted would; so
// if the peer parted from the same base, the union of both nodes' dirty blocks is
// all that differs, and else every block is copied. A copy that was rolled back,
// of either node, has marks that say nothing, and so has one without a history in
// common with the peer's: then too every block is copied. The latter gives up the
// name of its volume, too, and gets the peer's.
func (e *Engine) GiveUp(now time.Duration, c Changes, then func()) error {
	e.now = now
	s, h := &e.session, &e.header
	switch {
	case e.primary || e.promoting.active() || e.leaving.then != nil || !e.idle():
		return ErrServes
	case e.local == diskFailed:
		return ErrDiskFailed
	case !s.split:
		return ErrNoSplit
	case c.served != e.served || c.Generation != h.Generation || c.whole != s.whole():
		return ErrChanged
	}
	e.becomeDisconnected("gives its history up for that of " + e.cfg.Peer)
	h.Intended = h.Base
	if s.whole() {
		h.Intended = bitmap.Generation{}
	}
	if s.unrelated {
		h.VolumeID = [16]byte{}
	}
	s.split, s.unrelated = false, false
	old := e.contentState()
	h.State, h.LastPrimary, h.Serving, h.PeerMoment = bitmap.Inconsistent, false, false, 0
	e.observe("disk", old.String(), h.State.String(), "the operator has chosen the data of "+e.cfg.Peer)
	// The bits before the header: a copy that says what it lacks must know it.
	e.meta.wantPages(func() { e.meta.wantHeader(then) })
	e.settle()
	return nil
}
