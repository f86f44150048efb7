// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/twinbd/twinbd/bitmap"
)

// The nodes meet: each says what it has, both conclude the same, then they act
// on it. The decision itself is decide.go.

const featureS2 = "s2" // compressed copies

// greet says hello as soon as nothing of the last session is under way (rule
// 14), and what it says is durable.
func (e *Engine) greet() {
	s := &e.session
	if s.state != Draining || e.draining() || !e.primary && !e.idle() || e.meta.headerPending() {
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

// draining reports whether a disk task of an earlier session is under way. On a
// disk that failed none counts: this process uses it no more, and no other one
// can open it before this one has ended.
func (e *Engine) draining() bool {
	return e.local == diskGood && !mutated("a session begins when the last has ended") && (e.follower.busy() || e.resync.busy() || e.verify.busy())
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
		Version: ProtocolVersion, MinVersion: ProtocolMinVersion, Features: []string{featureS2, featureMoment},
		Cluster: e.cfg.Cluster, Volume: e.cfg.Volume, Node: e.cfg.Node, Peer: e.cfg.Peer,
		Proposal:    uint32(proposal[0])<<24 | uint32(proposal[1])<<16 | uint32(proposal[2])<<8 | uint32(proposal[3]),
		Incarnation: e.cfg.Incarnation,
		VolumeID:    h.VolumeID, Size: e.size, State: e.contentState().String(),
		Generation: generation, Base: h.Base, Intended: h.Intended, Ancestors: ancestorList(h),
		Moment: h.Moment, PeerMoment: h.PeerMoment, DirtyBlocks: e.dirty.Count(),
		Primary: e.primary || e.promoting.active(), KeptInStep: e.session.keptInStep,
		Number: e.session.number, Holder: e.session.holder, LastPrimary: h.LastPrimary,
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
	case h.MinVersion > ProtocolVersion || h.Version < ProtocolMinVersion:
		return fmt.Errorf("%s speaks protocol %d to %d, this node %d to %d: upgrade the older of the two",
			e.cfg.Peer, h.MinVersion, h.Version, ProtocolMinVersion, ProtocolVersion)
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
		e.contentState().String() != s.sent.State || e.dirty.Count() > 0 && s.mine.Action == ActionMirror && !mutated("marks that are left are copied") {
		return fmt.Errorf("changed while meeting, trying again")
	}
	e.act(s.mine)
	return nil
}

// act does what the verdict says.
func (e *Engine) act(v Verdict) {
	s := &e.session
	s.unrelated = v.Action == ActionUnrelated
	s.split = v.Action == ActionSplit || s.unrelated
	switch v.Action {
	case ActionMirror:
		e.becomeMirroring(v.Reason)
	case ActionResync, ActionFull:
		e.resync.conclude(v) // first, for who hears of Comparing asks at once whose blocks win
		e.become(Comparing, v.Reason)
		e.resync.compare()
	case ActionHost:
		e.remote.meet(e, v)
	default: // the peer concludes the same, once it has our verdict
		e.remote.despair(e)
		s.over = v.Reason
		e.hangUp()
	}
}

// hangUp ends a session that is over when the peer has been told.
func (e *Engine) hangUp() {
	if s := &e.session; s.over != "" && s.data.sent == len(s.data.out) {
		e.becomeDisconnected(s.over)
	}
}
