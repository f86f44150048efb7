// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/internal/block"
)

// The reasons for which a node cannot become primary.
var (
	ErrDiskFailed   = errors.New("the local disk has failed")
	ErrInconsistent = errors.New("the local disk is inconsistent: a resync onto it has not finished")
	ErrNoData       = errors.New("the local disk has never held data of this volume")
	ErrPeerNewer    = errors.New("the peer has newer data")
	ErrMeeting      = errors.New("the nodes are just comparing what they have")
)

// Promotable says why the engine could not serve its own disk's data, or nil.
// A fresh disk has no data, but may become the first primary.
func (e *Engine) Promotable() error {
	switch {
	case e.local == diskFailed:
		return fmt.Errorf("%w: %s", ErrDiskFailed, e.localWhy)
	case e.header.State == bitmap.Inconsistent:
		return ErrInconsistent
	case e.session.state == Greeting:
		return ErrMeeting
	case e.session.state == Comparing && !e.resync.source || e.session.state == Resyncing && !e.resync.source:
		return ErrPeerNewer
	}
	return nil
}

// Promote makes the engine serve clients, with the right that the arbiter has
// granted. then is called when that is durable. force accepts an inconsistent
// disk and begins a new history at once; who says so in the metadata.
func (e *Engine) Promote(now time.Duration, right Right, force string, then func()) error {
	e.now = now
	if err := e.Promotable(); err != nil && (force == "" || e.local == diskFailed) {
		return err
	}
	h := &e.header
	switch {
	case h.State == bitmap.Blank:
		e.firstGeneration()
	case h.State == bitmap.Fresh:
		e.firstGeneration()
		e.dirty.Set(0, e.dirty.Blocks())
		e.meta.wantPages(nil)
	case force != "":
		h.Base = bitmap.Generation{}
		e.newGeneration()
		h.Forced = force
		if h.State == bitmap.Inconsistent {
			e.dirty.Set(0, e.dirty.Blocks())
			e.meta.wantPages(nil)
		}
	}
	h.State, h.Intended, h.LastPrimary, h.Serving = bitmap.Consistent, bitmap.Generation{}, true, true
	e.right, e.promoting = right, true
	e.meta.wantHeader(func() {
		e.primary, e.promoting = true, false
		e.observe("role", "secondary", "primary", "")
		e.resync.claim()
		e.thaw()
		then()
	})
	e.settle()
	return nil
}

// firstGeneration begins the history of a volume.
func (e *Engine) firstGeneration() {
	h := &e.header
	h.Generation = blankGeneration
	e.newGeneration()
	if h.VolumeID == [16]byte{} {
		if _, err := io.ReadFull(e.cfg.Random, h.VolumeID[:]); err != nil {
			bug("no random numbers: %v", err)
		}
	}
}

// Demote stops serving: whatever was not acknowledged, and every later
// request, ends with status. then is called when nothing of the clients is
// under way any more and both disks are flushed.
func (e *Engine) Demote(now time.Duration, status block.Status, then func()) {
	e.now = now
	if !e.primary {
		then()
		return
	}
	e.primary, e.demoted = false, status
	e.right = RightNone
	e.observe("role", "primary", "secondary", "")
	for _, q := range []*opQueue{&e.frozen, &e.held, &e.window.stalled} {
		list := q.take()
		for o := list.pop(); o != nil; o = list.pop() {
			e.giveUp(o)
		}
	}
	e.header.Serving = false
	e.rounds.whenDone(e, func() { e.meta.wantHeader(then) })
	e.settle()
}

// giveUp ends an op that will not be acknowledged here.
func (e *Engine) giveUp(o *op) {
	if o.kind.Changes() && o.lock.held {
		e.dropIntents(o)
	}
	e.answer(o, e.demoted)
}

// SetRight tells the engine what the arbiter has granted, or taken back.
func (e *Engine) SetRight(now time.Duration, r Right) {
	e.now = now
	if old := e.right; old != r {
		e.observe("right", old.String(), r.String(), "")
	}
	e.right = r
	if r == RightAlone {
		e.alone.asked = false
		e.resync.claim()
	}
	if r == RightNone && e.primary && e.session.state != Mirroring {
		e.alone.asked = false
		e.seekAlone()
	}
	e.thaw()
	e.settle()
}
