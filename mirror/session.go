// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/internal/block"
)

// The protocol's versions that this code speaks.
const (
	protocolVersion    = 1
	protocolMinVersion = 1

	featureS2 = "s2" // compressed copies
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
	holder     bool   // the record names this node, as last told
	equal      uint64 // incarnation of the peer that was last an equal
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

// SetHolder tells the engine whether the record names this node.
func (e *Engine) SetHolder(holder bool) { e.session.holder = holder }

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
	if s.state == Mirroring {
		s.keptInStep = true
	}
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
	stalled := e.window.stalled.take()
	for o := stalled.pop(); o != nil; o = stalled.pop() {
		e.run = append(e.run, o)
	}
	e.seekAlone()
	e.rounds.check(e)
	e.acknowledgeHeld()
}

// greet says hello as soon as nothing of the last session is under way (rule
// 14), and what it says is durable.
func (e *Engine) greet() {
	s := &e.session
	if s.state != Draining || e.follower.busy() || e.resync.busy() || e.verify.busy() ||
		!e.primary && !e.idle() || e.meta.headerPending() {
		return
	}
	s.heard, s.pinged = e.now, e.now
	s.sent = e.hello()
	b, err := json.Marshal(s.sent)
	if err != nil {
		bug("marshal hello: %v", err)
	}
	e.become(Greeting, "meeting "+e.cfg.Peer)
	s.data.pushCopy(&Frame{Type: frameHello}, b)
}

func (e *Engine) hello() Hello {
	var proposal [4]byte
	if _, err := e.cfg.Random.Read(proposal[:]); err != nil {
		bug("no random numbers: %v", err)
	}
	h := &e.header
	generation := h.Generation
	if h.State == bitmap.Blank {
		generation = blankGeneration
	}
	return Hello{
		Version: protocolVersion, MinVersion: protocolMinVersion, Features: []string{featureS2},
		Cluster: e.cfg.Cluster, Volume: e.cfg.Volume, Node: e.cfg.Node, Peer: e.cfg.Peer,
		Proposal:    uint32(proposal[0])<<24 | uint32(proposal[1])<<16 | uint32(proposal[2])<<8 | uint32(proposal[3]),
		Incarnation: e.cfg.Incarnation,
		VolumeID:    h.VolumeID, Size: e.size, State: e.contentState().String(),
		Generation: generation, Base: h.Base, Intended: h.Intended, Ancestors: ancestorList(h),
		Sequence: e.meta.headerSequence, PeerSequence: h.PeerSequence, DirtyBlocks: e.dirty.Count(),
		Primary: e.primary || e.promoting.active(), KeptInStep: e.session.keptInStep, Holder: e.session.holder, LastPrimary: h.LastPrimary,
	}
}

// ancestorList are the ancestors without the empty places.
func ancestorList(h *bitmap.Header) []bitmap.Generation {
	n := 0
	for n < len(h.Ancestors) && !h.Ancestors[n].IsZero() {
		n++
	}
	return slices.Clone(h.Ancestors[:n])
}

// contentState is the state of the disk's content, whatever could be written.
func (e *Engine) contentState() bitmap.State {
	if e.local == diskFailed {
		return bitmap.Failed
	}
	return e.header.State
}

// frame takes one frame of link l. An error ends the session.
func (e *Engine) frame(l *Link, f *Frame) error {
	s := &e.session
	if l.bulk == isDataFrame(f.Type) {
		return fmt.Errorf("%s: %w", f.Type, errSequence)
	}
	if f.Type == frameHello {
		return e.greeted(f)
	}
	if s.state == Draining || !s.greeted && f.Type != frameBye || s.greeted && f.Session != s.id {
		return fmt.Errorf("%s of another session: %w", f.Type, errSequence)
	}
	s.heard = e.now
	if err := e.dispatch(f); err != nil {
		return fmt.Errorf("%s: %w", f.Type, err)
	}
	return nil
}

// isDataFrame reports on which of the two connections a frame travels.
func isDataFrame(t frameType) bool {
	switch t {
	case frameCopy, frameCopyAck, frameSum, frameSumReply:
		return false
	}
	return true
}

func (e *Engine) dispatch(f *Frame) error {
	switch f.Type {
	case frameVerdict:
		return e.verdictReceived(f)
	case frameBye:
		return fmt.Errorf("%s ends the session: %s", e.cfg.Peer, printable(f.Payload))
	case framePing:
		e.session.data.push(&Frame{Type: framePong, Session: e.session.id}, nil)
		return nil
	case framePong:
		return nil
	case frameBatch:
		return e.follower.batch(f)
	case frameAck:
		return e.acks(f)
	case frameFlush:
		return e.follower.flush(f)
	case frameFlushAck:
		return e.rounds.peerDone(e, f.Sequence, block.Status(f.Count))
	case frameDirty:
		return e.resync.dirty(f)
	case frameStart:
		return e.resync.started(f)
	case frameReady:
		return e.resync.ready(f)
	case frameCopy:
		return e.follower.copy(f)
	case frameCopyAck:
		return e.resync.copied(f)
	case frameFinish:
		return e.resync.finishing(f)
	case frameFinishAck:
		return e.resync.finished(f)
	case frameSum:
		return e.follower.sum(f)
	case frameSumReply:
		return e.verify.reply(f)
	case frameGone:
		return e.remote.gone(e, f)
	case frameGoneAck:
		return e.remote.goneAck(e, f)
	case frameRead:
		return e.remote.readFor(e, f)
	case frameRole:
		return e.peerRole(f)
	case frameReadReply:
		return e.remote.readReply(e, f)
	}
	return errSequence
}

// acks takes the outcomes of changes that the peer has carried out.
func (e *Engine) acks(f *Frame) error {
	if len(f.Payload)%ackRangeSize != 0 {
		return errPayload
	}
	for p := f.Payload; len(p) > 0; p = p[ackRangeSize:] {
		if err := e.window.acknowledge(e, parseAckRange(p)); err != nil {
			return err
		}
	}
	e.window.relaunch(e)
	return nil
}

// greeted takes the peer's hello and answers with a verdict.
func (e *Engine) greeted(f *Frame) error {
	s := &e.session
	if s.state != Greeting || s.greeted {
		return errSequence
	}
	var h Hello
	if len(f.Payload) > 64<<10 {
		return errTooLong
	}
	if err := json.Unmarshal(f.Payload, &h); err != nil {
		return fmt.Errorf("read hello: %w", err)
	}
	if err := e.acquaint(h); err != nil {
		return err
	}
	s.received, s.greeted, s.heard = h, true, e.now
	low, high := s.sent.Proposal, h.Proposal
	if e.cfg.Peer < e.cfg.Node {
		low, high = high, low
	}
	s.id = uint64(low)<<32 | uint64(high)
	s.features = nil
	for _, feature := range s.sent.Features {
		if slices.Contains(h.Features, feature) {
			s.features = append(s.features, feature)
		}
	}
	s.mine = Decide(s.sent, h)
	b, err := json.Marshal(s.mine)
	if err != nil {
		bug("marshal verdict: %v", err)
	}
	s.data.pushCopy(&Frame{Type: frameVerdict, Session: s.id}, b)
	return nil
}

// acquaint refuses a peer that is not the one that belongs here.
func (e *Engine) acquaint(h Hello) error {
	switch {
	case h.MinVersion > protocolVersion || h.Version < protocolMinVersion:
		return fmt.Errorf("%s speaks protocol %d to %d, this node %d to %d: upgrade the older of the two",
			e.cfg.Peer, h.MinVersion, h.Version, protocolMinVersion, protocolVersion)
	case h.Cluster != e.cfg.Cluster:
		return fmt.Errorf("the peer belongs to cluster %q, this node to %q", h.Cluster, e.cfg.Cluster)
	case h.Volume != e.cfg.Volume:
		return fmt.Errorf("the peer offers volume %q, this node %q", h.Volume, e.cfg.Volume)
	case h.Node == e.cfg.Node:
		return fmt.Errorf("the peer also says that it is node %q: check --node or the host names", h.Node)
	case h.Node != e.cfg.Peer || h.Peer != e.cfg.Node:
		return fmt.Errorf("the peer is node %q and expects %q, this node is %q and expects %q", h.Node, h.Peer, e.cfg.Node, e.cfg.Peer)
	case h.Size != e.size:
		return fmt.Errorf("volume %s is %d bytes at %s and %d here: make the size in the configuration the same on both and run `twinbd create` where the disk is new",
			e.cfg.Volume, h.Size, e.cfg.Peer, e.size)
	}
	return nil
}

// verdictReceived: both must have concluded the same from the same values, and
// these must still hold here.
func (e *Engine) verdictReceived(f *Frame) error {
	s := &e.session
	if s.state != Greeting || s.theirs != nil {
		return errSequence
	}
	var v Verdict
	if err := json.Unmarshal(f.Payload, &v); err != nil {
		return fmt.Errorf("read verdict: %w", err)
	}
	s.theirs = &v
	if !s.mine.Same(v) {
		return fmt.Errorf("concluded %s %s here, %s %s at %s", s.mine.Action, s.mine.Source, v.Action, v.Source, e.cfg.Peer)
	}
	if h := &e.header; h.State != bitmap.Blank && h.Generation != s.sent.Generation || h.Base != s.sent.Base || (e.primary || e.promoting.active()) != s.sent.Primary ||
		e.contentState().String() != s.sent.State || e.dirty.Count() > 0 && s.mine.Action == ActionMirror {
		return fmt.Errorf("changed while meeting, trying again")
	}
	if h := &e.header; h.PeerSequence != s.received.Sequence {
		h.PeerSequence = s.received.Sequence
		e.meta.wantHeader(nil)
	}
	e.act(s.mine)
	return nil
}

// act does what the verdict says.
func (e *Engine) act(v Verdict) {
	switch v.Action {
	case ActionMirror:
		e.becomeMirroring(v.Reason)
	case ActionResync, ActionFull:
		e.become(Comparing, v.Reason)
		e.resync.compare(v)
	case ActionHost:
		e.remote.meet(e, v)
	default: // the peer concludes the same by itself
		e.remote.despair(e)
		e.becomeDisconnected(v.Reason)
	}
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
	e.thaw()
}

// tick notices a peer that is silent, or that is there and does not
// acknowledge (rule 15).
func (s *session) tick(e *Engine) {
	if s.state == Disconnected {
		return
	}
	if s.state == Draining {
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

// printable makes a peer's words fit for a log line.
func printable(b []byte) string {
	const most = 300
	if len(b) > most {
		b = b[:most]
	}
	return string(slices.DeleteFunc(slices.Clone([]rune(string(b))), func(r rune) bool { return r < ' ' || r == 0x7f }))
}
