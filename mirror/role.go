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
	ErrPeerServes   = errors.New("the peer serves the volume, as far as the session with it tells")
	ErrPeerNewer    = errors.New("the peer has newer data")
	ErrServes       = errors.New("this node serves already, or is about to")
	ErrMeeting      = errors.New("the nodes are just comparing what they have")
)

// Promotable says why the engine could not serve its own disk's data, or nil.
// A fresh disk has no data, but may become the first primary.
func (e *Engine) Promotable() error {
	switch {
	case e.broke:
		return fmt.Errorf("%w since twinbd was started: %s", ErrDiskFailed, e.localWhy)
	case e.local == diskFailed:
		return fmt.Errorf("%w: %s", ErrDiskFailed, e.localWhy)
	case e.header.State == bitmap.Inconsistent:
		return ErrInconsistent
	case e.session.state == Greeting:
		return ErrMeeting
	case e.session.greeted && e.session.received.Primary:
		return ErrPeerServes
	case e.session.state == Comparing && !e.resync.source && !e.equals(), e.session.state == Resyncing && !e.resync.source:
		return ErrPeerNewer
	}
	return nil
}

// equals reports whether the nodes just compare two whole disks of one generation.
// All that was acknowledged and flushed is on both. One is preferred, because it
// may have more (rule 22); but the other may serve where another volume of the
// service leaves no choice (rule 10).
func (e *Engine) equals() bool {
	s := &e.session
	return s.state == Comparing && hasData(s.sent) && hasData(s.received) && s.sent.Generation == s.received.Generation
}

// promotion is the way from secondary to primary.
type promotion struct {
	then    func() // nil when there is none under way
	durable bool   // the header says that this node serves
}

func (p *promotion) active() bool { return p.then != nil }

// Promote makes the engine serve clients, with the right that the arbiter has
// granted. then is called when that is durable and nothing that the old primary
// sent is under way any more. force begins a new history at once, and who says so
// stands in the metadata; it accepts an inconsistent disk, and one that had failed
// when this process began: the operator takes what it still holds for the truth.
func (e *Engine) Promote(now time.Duration, right Right, force string, then func()) error {
	e.now = now
	if e.primary || e.promoting.active() {
		return ErrServes
	}
	if err := e.Promotable(); err != nil && (force == "" || e.broke) {
		return err
	}
	if s := e.session.state; s != Mirroring && !e.resync.leads() {
		e.becomeDisconnected("becomes primary") // what was concluded holds no longer
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
		e.local, e.localWhy, h.Reason = diskGood, "", ""
		if h.State != bitmap.Consistent {
			e.dirty.Set(0, e.dirty.Blocks())
			e.meta.wantPages(nil)
		}
	}
	h.State, h.Intended, h.LastPrimary, h.Serving = bitmap.Consistent, bitmap.Generation{}, true, true
	e.right, e.promoting = right, promotion{then: then}
	e.meta.wantHeader(func() { e.promoting.durable = true })
	e.settle()
	return nil
}

// serve ends a promotion. Changes of the old primary are not ordered by this
// node's range locks, so they end before the first one of a client begins.
func (e *Engine) serve() {
	p := e.promoting
	if !p.active() || !p.durable || e.follower.busy() && !mutated("who takes over waits for what was under way") || !e.idle() {
		return
	}
	e.promoting = promotion{}
	e.primary = true
	e.served++
	e.tellRole()
	e.observe("role", "secondary", "primary", "")
	e.resync.claim()
	if !e.session.replicates() {
		e.seekAlone() // nobody lost the peer meanwhile who would have asked
	}
	e.thaw()
	p.then()
}

// idle reports whether nothing of clients is under way.
func (e *Engine) idle() bool { return e.ops.used == 0 }

// mayFollow reports whether the peer's changes may be carried out: this node
// does not serve, and what it did for clients earlier has ended (rule 7).
func (e *Engine) mayFollow() bool { return !e.primary && !e.promoting.active() && e.idle() }

// tellRole tells a peer that was met before the role changed.
func (e *Engine) tellRole() {
	if !e.session.greeted {
		return
	}
	f := Frame{Type: frameRole, Session: e.session.id}
	if e.primary {
		f.Count = 1
	}
	e.session.data.push(&f, nil)
}

// peerRole takes the peer's new role; who follows was not the last to serve.
func (e *Engine) peerRole(f *Frame) error {
	serves := f.Count == 1
	if serves && e.primary {
		return fmt.Errorf("both nodes serve: %w", errSequence)
	}
	e.session.received.Primary = serves
	if serves && e.header.LastPrimary {
		e.header.LastPrimary = false
		e.meta.wantHeader(nil)
	}
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

// Flush flushes both disks while this node goes on serving, then calls then:
// what a Demote after it has left to flush is little, and so is the pause.
func (e *Engine) Flush(now time.Duration, then func()) {
	e.now = now
	e.rounds.whenDone(e, then)
	e.settle()
}

// departure is the way from primary to secondary.
type departure struct {
	then  func() // nil when there is none under way
	flush bool   // nothing of clients is under way, both disks are being flushed
}

// Demote stops serving: whatever was not acknowledged, and every later
// request, ends with status. then is called when nothing of the clients is
// under way any more and both disks are flushed; of a disk that failed nothing
// is waited for.
func (e *Engine) Demote(now time.Duration, status block.Status, then func()) {
	e.now = now
	serves := e.primary || e.promoting.active()
	if !serves && e.leaving.then == nil {
		then()
		return
	}
	if old := e.leaving.then; old != nil {
		first := then
		then = func() { old(); first() }
	}
	e.leaving.then = then
	if serves {
		e.primary, e.demoted, e.promoting = false, status, promotion{}
		e.right, e.header.Serving, e.alone.asked = RightNone, false, false
		e.tellRole()
		e.observe("role", "primary", "secondary", "")
		e.giveUpUnowed()
	}
	e.settle()
}

// depart goes on with a departure. What was flushed needs no intents any more, so
// that nothing is copied when this node returns that the marks do not name.
func (e *Engine) depart() {
	d := &e.leaving
	if d.then == nil || d.flush || e.ops.used > 0 {
		return
	}
	d.flush = true
	e.rounds.whenDone(e, func() {
		if e.local == diskFailed {
			e.departed()
			return
		}
		e.meta.wantPages(func() {
			for e.evict(1, 0) > 0 { // keeping none
			}
			e.meta.wantHeader(e.departed)
		})
	})
}

// departed ends a departure.
func (e *Engine) departed() {
	if d := e.leaving; d.then != nil && d.flush {
		e.leaving = departure{}
		d.then()
	}
}

// SetRight tells the engine what the arbiter has granted, or taken back. A node
// that has less than the right to be alone, and no equal, needs that right: it
// asks anew, also where the peer was lost while the right was still there.
func (e *Engine) SetRight(now time.Duration, r Right) {
	e.now = now
	old := e.right
	if old != r {
		e.observe("right", old.String(), r.String(), "")
	}
	e.right = r
	switch {
	case r == RightAlone:
		e.alone.asked = false
		e.resync.claim()
	case !e.primary || e.session.state == Mirroring:
	case r == RightNone, old == RightAlone:
		e.alone.asked = false
		e.seekAlone()
	}
	e.thaw()
	e.settle()
}
