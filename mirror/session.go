// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"fmt"
	"time"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/internal/block"
)

// SessionState is how far the nodes have come with each other.
type SessionState uint8

// The states of the session; the package comment draws them.
const (
	Disconnected SessionState = iota
	Draining
	Greeting
	Comparing
	Resyncing
	Mirroring
	Hosting // one node serves from the other's disk
)

func (s SessionState) String() string {
	return [...]string{"disconnected", "draining", "greeting", "comparing", "resyncing", "mirroring", "hosting"}[s]
}

// session is the engine's relation to its peer. It changes in become… only.
type session struct {
	state SessionState
	id    uint64
	data  *Link
	bulk  *Link

	sent       Hello
	received   Hello
	greeted    bool
	mine       Verdict
	theirs     *Verdict
	features   []string
	keptInStep bool // in step when the last session of this process ended
	heard      time.Duration
	pinged     time.Duration
	reason     string // why there is no session, or none that mirrors
	since      time.Duration
	over       string // why the session ends as soon as all is sent; empty if it does not
	split      bool   // when last compared, both nodes had writes that the other lacks
	unrelated  bool   // … and not even a history in common
	holder     bool   // the record names this node, as last told
	number     uint64 // … as of this epoch, or this promise
	equal      uint64 // incarnation of the peer that was last an equal
}

// whole reports whether marks say nothing of what differs.
func (s *session) whole() bool {
	return s.split && (s.unrelated || rolledBack(s.sent, s.received) || rolledBack(s.received, s.sent))
}

// replicates reports whether changes go to both nodes.
func (s *session) replicates() bool { return s.state == Resyncing || s.state == Mirroring }

// peerFailed is the error that ends a session whose peer could not do what it
// was asked.
func peerFailed(s block.Status) error { return fmt.Errorf("the peer's disk reports %w", s) }

// Connect begins a session on two fresh connections and returns what is behind
// each. A session that is under way ends first.
func (e *Engine) Connect(now time.Duration) (data, bulk *Link) {
	e.now = now
	e.becomeDisconnected("replaced by a new connection")
	e.session.data, e.session.bulk = newLink(e, false), newLink(e, true)
	e.become(Draining, "connected")
	e.settle()
	return e.session.data, e.session.bulk
}

// Disconnect ends the session.
func (e *Engine) Disconnect(now time.Duration, reason string) {
	e.now = now
	e.becomeDisconnected(reason)
	e.settle()
}

// SetHolder tells the engine whether the record names this node, or a promise that
// is above it, as of which number: of two nodes the one with the higher is right.
func (e *Engine) SetHolder(number uint64, holder bool) {
	e.session.number, e.session.holder = number, holder
}

// lostLink: a link has ended.
func (e *Engine) lostLink(l *Link, reason string) {
	if l == e.session.data || l == e.session.bulk {
		e.becomeDisconnected(reason)
	}
}

// become is the only place where the session's state changes.
func (e *Engine) become(s SessionState, reason string) {
	old := e.session.state
	e.session.state, e.session.reason, e.session.since = s, reason, e.now
	if old != s {
		e.observe("session", old.String(), s.String(), reason)
	}
}

// becomeDisconnected is what losing the peer means, in one place: nothing more
// is sent or taken; what the peer may lack is dirty (rule 4); whoever waited
// for it waits for the right to go on alone (rules 2, 9, 16).
func (e *Engine) becomeDisconnected(reason string) {
	if e.session.state == Disconnected {
		return
	}
	s := &e.session
	if s.over != "" {
		reason, s.over = s.over, ""
	}
	mirrored := s.state == Mirroring
	s.keptInStep = s.keptInStep || mirrored
	s.data.drop()
	s.bulk.drop()
	s.id, s.greeted, s.theirs = 0, false, nil
	e.resync.stop()
	e.verify.stop(reason)
	e.follower.forget()
	hosting := s.state == Hosting
	e.become(Disconnected, reason)
	if hosting {
		e.remote.lost(e)
	}
	e.marks.peerLost(e)
	e.rounds.peerLost(e)
	e.window.lose(e)
	if mirrored && e.primary && e.right == RightAlone && e.local == diskGood {
		e.partAgain()
	}
	e.seekAlone()
	e.rounds.check(e)
	e.acknowledgeHeld()
}

// Bye tells the peer that this node ends the session by plan, and why. The
// caller sends what the data link has to say before it disconnects.
func (e *Engine) Bye(now time.Duration, reason string) {
	e.now = now
	if e.session.greeted {
		e.session.data.pushCopy(&Frame{Type: frameBye, Session: e.session.id}, []byte(reason))
	}
}

// becomeMirroring: the disks are alike.
func (e *Engine) becomeMirroring(reason string) {
	e.become(Mirroring, reason)
	e.alone.asked = false
	e.session.equal = e.session.received.Incarnation
	h := &e.header
	if !h.Base.IsZero() || e.session.received.Primary && h.LastPrimary {
		h.Base = bitmap.Generation{}
		h.LastPrimary = h.LastPrimary && !e.session.received.Primary
		e.meta.wantHeader(nil)
	}
	e.raiseMoment()
	e.thaw()
}

// tick notices a peer that is silent, or that is there and does not
// acknowledge (rule 15).
func (s *session) tick(e *Engine) {
	if s.state == Disconnected || s.state == Draining {
		return
	}
	limit := e.cfg.PeerTimeout
	if e.now-s.heard >= limit {
		e.becomeDisconnected(fmt.Sprintf("%s was silent for %v", e.cfg.Peer, limit))
		return
	}
	if e.owing() >= limit {
		e.becomeDisconnected(fmt.Sprintf("%s did not acknowledge for %v", e.cfg.Peer, limit))
		return
	}
	if s.greeted && e.now-s.pinged >= limit/5 {
		s.pinged = e.now
		s.data.push(&Frame{Type: framePing, Session: s.id}, nil)
	}
}

// owing is for how long the peer has owed the answer that it owes longest. What
// a client waits for is in here, directly or behind a range lock.
func (e *Engine) owing() (longest time.Duration) {
	if since, ok := e.window.waiting(); ok {
		longest = e.now - since
	}
	if e.rounds.peer {
		longest = max(longest, e.now-e.rounds.began)
	}
	for _, c := range e.resync.runs {
		if c.sent {
			longest = max(longest, e.now-c.since)
		}
	}
	for _, c := range e.verify.runs {
		if len(c.theirs) == 0 && c.sent {
			longest = max(longest, e.now-c.since)
		}
	}
	for _, o := range e.remote.reads {
		longest = max(longest, e.now-o.started)
	}
	return longest
}
