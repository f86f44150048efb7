// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"errors"
	"time"

	"github.com/twinbd/twinbd/bitmap"
)

// The end of a split (rule 11): the operator has chosen, and the node that loses
// gives its history up. Nothing is copied before, and nothing is decided here:
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
}

// maxChangesRun bounds one run: 1 GiB.
const maxChangesRun = 1 << 18

// Changes returns what this node has written since it parted from its peer. It
// is for the end of a split, and is as long as the dirty blocks are scattered.
func (e *Engine) Changes() Changes {
	h := &e.header
	c := Changes{Blocks: e.dirty.Count(), VolumeID: h.VolumeID, Generation: h.Generation, Base: h.Base, served: e.served}
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
// of either node, has marks that say nothing: then too every block is copied.
func (e *Engine) GiveUp(now time.Duration, c Changes, then func()) error {
	e.now = now
	s, h := &e.session, &e.header
	switch {
	case e.primary || e.promoting.active() || e.leaving.then != nil || !e.idle():
		return ErrServes
	case e.local == diskFailed:
		return ErrDiskFailed
	case !s.split || s.mine.Action != ActionSplit:
		return ErrNoSplit
	case c.served != e.served || c.Generation != h.Generation:
		return ErrChanged
	}
	e.becomeDisconnected("gives its history up for that of " + e.cfg.Peer)
	s.split = false
	h.Intended = h.Base
	if rolledBack(s.sent, s.received) || rolledBack(s.received, s.sent) {
		h.Intended = bitmap.Generation{}
	}
	h.State, h.LastPrimary, h.Serving, h.PeerMoment = bitmap.Inconsistent, false, false, 0
	e.observe("disk", bitmap.Consistent.String(), h.State.String(), "the operator has chosen the data of "+e.cfg.Peer)
	// The bits before the header: a copy that says what it lacks must know it.
	e.meta.wantPages(func() { e.meta.wantHeader(then) })
	e.settle()
	return nil
}
