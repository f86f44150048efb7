// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/failover"
	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/mirror"
)

// Act does what an operator asks (control.Backend).
func (n *Node) Act(ctx context.Context, a control.Action, progress func(control.Progress)) error {
	s := n.service(a.Service)
	if s == nil {
		return &control.Refusal{
			Message: fmt.Sprintf("service %q is not in the configuration of %s", a.Service, n.self.Name),
			Hint:    "`twinbd status` lists the services",
		}
	}
	switch a.Verb {
	case "prim":
		return s.prim(ctx, a.Who, progress)
	case "primforce":
		return s.primforce(ctx, a.Who, progress)
	case "verify":
		return s.verify(ctx, a, progress)
	case "resync":
		return s.resync(ctx, a, progress)
	}
	return control.ErrUnknownVerb
}

// meetTimeout is how long prim waits for the nodes to compare what they have,
// and, beyond its timeout, for a peer that answers no more to be found lost.
const meetTimeout = 2 * time.Second

// prim makes this node the primary, by its operator's choice, where no
// acknowledged write is lost by it.
func (s *service) prim(ctx context.Context, who string, progress func(control.Progress)) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	if s.serves() {
		return &control.Refusal{Message: fmt.Sprintf("%s serves %s already", s.node.self.Name, s.cfg.Name)}
	}
	peer, peerErr := s.node.peers.ask(ctx, call{Verb: callState, Service: s.cfg.Name})
	if peerErr == nil && peer.Serves {
		return &control.Refusal{
			Message: fmt.Sprintf("%s serves %s", s.node.peer.Name, s.cfg.Name),
			Hint:    fmt.Sprintf("stop twinbd on %s first", s.node.peer.Name),
		}
	}
	if err := s.promotable(ctx, peerErr == nil); err != nil {
		return err
	}
	if peerErr != nil {
		peer = reply{}
	}
	if err := s.acquire(ctx, peerErr == nil, peer); err != nil {
		return err
	}
	return s.promote(ctx, who, "", progress)
}

// promotable waits while the nodes compare what they have, then says why a
// volume cannot be served here.
func (s *service) promotable(ctx context.Context, peerAnswers bool) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.PeerTimeout+meetTimeout)
	defer cancel()
	for _, v := range s.volumes {
		for {
			var err error
			if !v.do(func(time.Duration) { err = v.engine.Promotable() }) {
				return errStopping
			}
			if err == nil {
				break
			}
			passes := errors.Is(err, mirror.ErrMeeting) || errors.Is(err, mirror.ErrPeerServes) && !peerAnswers
			if passes && ctx.Err() == nil {
				wait(ctx, 20*time.Millisecond)
				continue
			}
			return s.notPromotable(v, err)
		}
	}
	return nil
}

func (s *service) notPromotable(v *volume, err error) error {
	r := &control.Refusal{Message: fmt.Sprintf("volume %s cannot be served from %s: %v", v.cfg.Name, s.node.self.Name, err)}
	switch {
	case errors.Is(err, mirror.ErrPeerServes):
		r.Hint = fmt.Sprintf("stop twinbd on %s first; when it is dead, that is noticed within %v", s.node.peer.Name, s.cfg.PeerTimeout)
	case errors.Is(err, mirror.ErrInconsistent), errors.Is(err, mirror.ErrPeerNewer):
		r.Hint = fmt.Sprintf("run `twinbd prim %s` on %s; this node then catches up by itself", s.cfg.Name, s.node.peer.Name)
	case errors.Is(err, mirror.ErrDiskFailed):
		r.Hint = fmt.Sprintf("serve from %s, replace the disk here and run `twinbd create --anew %s`", s.node.peer.Name, v.cfg.Name)
	}
	return r
}

// acquire gets the right to serve from the witness (rules 16, 22).
func (s *service) acquire(ctx context.Context, peerAnswers bool, peer reply) error {
	if s.node.witness == nil {
		return s.acquireAlone()
	}
	record, err := s.read(ctx)
	if err != nil {
		return &control.Refusal{Message: err.Error(), Hint: "without the witness nobody can say whether the other node has newer data; bring it back"}
	}
	q := &failover.Request{Replaces: record.Epoch, Holder: s.node.self.Name, Mode: failover.Alone}
	inStep := s.inStep()
	known := s.epoch()
	// The next epoch is learned before the record has it (rule 16).
	lost := record.Epoch < known && (known != inStep || known > record.Epoch+1)
	if err := s.worthServing(record, peer); err != nil {
		return err
	}
	switch {
	case lost && !(peerAnswers && s.agreedSource()):
		return s.forgotten(record, known)
	case lost:
		q.Operator, q.RaiseTo = true, known+1
	case record.Empty():
		q.Operator = true
	case record.Holder == s.node.self.Name:
	case record.Mode == failover.Pair && inStep == record.Epoch:
		q.Replaces = inStep
	case peerAnswers && s.agreedSource():
		if _, err := s.node.peers.ask(ctx, call{Verb: callGive, Service: s.cfg.Name}); err != nil {
			return fmt.Errorf("take over from %s: %w", s.node.peer.Name, err)
		}
		return s.acquired(ctx)
	default:
		return s.stale(record, inStep)
	}
	answer, err := s.change(ctx, q)
	if err != nil {
		return err
	}
	if !answer.Granted {
		return &control.Refusal{Message: answer.Reason, Hint: "look at `twinbd status`, then try again"}
	}
	return nil
}

// worthServing refuses what the record and the peer show to be a loss, though
// this node's own disks do not know of it.
func (s *service) worthServing(record failover.Record, peer reply) error {
	if record.Empty() {
		return nil
	}
	for _, v := range s.volumes {
		state := v.status.Load().State
		if state != bitmap.Blank && state != bitmap.Fresh {
			continue
		}
		if there := peer.Disks[v.cfg.Name]; there != "blank" && there != "none" {
			return &control.Refusal{
				Message: fmt.Sprintf("the disk of volume %s is new here, and %s has been served before (%v)", v.cfg.Name, s.cfg.Name, record),
				Hint:    fmt.Sprintf("run `twinbd prim %s` on %s; this node is then copied to", s.cfg.Name, s.node.peer.Name),
			}
		}
	}
	// A holder that restarted may have lost what was not flushed; a peer that
	// kept running in step has it (rule 22).
	if record.Holder == s.node.self.Name && peer.Kept && !s.kept() && s.sameHistory(peer) && !s.agreedSource() {
		return &control.Refusal{
			Message: fmt.Sprintf("%s kept running in step while this node restarted: it has every acknowledged write", s.node.peer.Name),
			Hint:    fmt.Sprintf("run `twinbd prim %s` on %s; this node then catches up by itself", s.cfg.Name, s.node.peer.Name),
		}
	}
	return nil
}

// sameHistory reports whether the peer's copies are of the same generations: so
// nothing was acknowledged without it, whatever the record allows.
func (s *service) sameHistory(peer reply) bool {
	for _, v := range s.volumes {
		if peer.Generations[v.cfg.Name] != v.status.Load().Generation.Hex() {
			return false
		}
	}
	return true
}

// kept reports whether this process was in step with the peer on every volume
// when it last saw it.
func (s *service) kept() bool {
	for _, v := range s.volumes {
		if st := v.status.Load(); !st.KeptInStep && st.Session != mirror.Mirroring {
			return false
		}
	}
	return true
}

// forgotten refuses to believe a witness that has lost newer records: only both
// nodes together know what they said (rule 16).
func (s *service) forgotten(record failover.Record, known uint64) error {
	return &control.Refusal{
		Message: fmt.Sprintf("the witness has lost records: it has %v of %s, and this node knows epoch %d: nobody can say from one node whether the other has newer data",
			record, s.cfg.Name, known),
		Hint: fmt.Sprintf("start twinbd on %s, so that both compare what they have; `twinbd primforce %s` gives its writes up", s.node.peer.Name, s.cfg.Name),
	}
}

// acquired makes sure that the record names this node now.
func (s *service) acquired(ctx context.Context) error {
	record, err := s.read(ctx)
	if err != nil {
		return err
	}
	if record.Holder != s.node.self.Name {
		return fmt.Errorf("the service is at %v", record)
	}
	return s.remember(func(st *failover.NodeState) {
		st.Epoch, st.Holder = max(st.Epoch, record.Epoch), record.Holder
	})
}

// stale refuses a node that lacks writes, with the epoch as the reason.
func (s *service) stale(record failover.Record, inStep uint64) error {
	last := "was never in step"
	if inStep > 0 {
		last = fmt.Sprintf("was last in step in epoch %d", inStep)
	}
	return &control.Refusal{
		Message: fmt.Sprintf("%s may lack acknowledged writes: %s has served %s alone since epoch %d, and this node %s",
			s.node.self.Name, record.Holder, s.cfg.Name, record.Epoch, last),
		Hint: fmt.Sprintf("bring %s back; `twinbd primforce %s` gives its writes up", record.Holder, s.cfg.Name),
	}
}

// acquireAlone is acquire where no witness is configured: only who served last,
// or a service that never ran, is certain to have everything.
func (s *service) acquireAlone() error {
	s.mu.Lock()
	holder := s.state.Holder
	s.mu.Unlock()
	if holder == s.node.peer.Name && !s.agreedSource() {
		return &control.Refusal{
			Message: fmt.Sprintf("%s served %s last and there is no witness: it may have writes that this node lacks", holder, s.cfg.Name),
			Hint:    fmt.Sprintf("bring %s back; `twinbd primforce %s` gives its writes up", holder, s.cfg.Name),
		}
	}
	return s.remember(func(st *failover.NodeState) { st.Epoch++; st.Holder = s.node.self.Name })
}

// agreedSource reports whether both nodes are connected, both disks hold data,
// and they found that this one's blocks win. Where the other's disk is new that
// says nothing: what it held is gone.
func (s *service) agreedSource() bool {
	for _, v := range s.volumes {
		st := v.status.Load()
		if st.Session != mirror.Mirroring && (st.Session != mirror.Comparing || !st.Source || st.PeerState != bitmap.Consistent.String()) {
			return false
		}
	}
	return true
}

func (s *service) inStep() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.InStep
}

// primforce makes this node the primary whatever the other has. The operator
// was told what is lost.
func (s *service) primforce(ctx context.Context, who string, progress func(control.Progress)) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	if s.serves() {
		return &control.Refusal{Message: fmt.Sprintf("%s serves %s already", s.node.self.Name, s.cfg.Name)}
	}
	if peer, err := s.node.peers.ask(ctx, call{Verb: callState, Service: s.cfg.Name}); err == nil && peer.Serves {
		return &control.Refusal{
			Message: fmt.Sprintf("%s serves %s now: forcing this node would make two histories", s.node.peer.Name, s.cfg.Name),
			Hint:    fmt.Sprintf("stop twinbd on %s first", s.node.peer.Name),
		}
	}
	force := fmt.Sprintf("primforce by %s at %s", who, time.Now().UTC().Format(time.RFC3339))
	if s.node.witness == nil {
		if err := s.remember(func(st *failover.NodeState) { st.Epoch++; st.Holder = s.node.self.Name }); err != nil {
			return err
		}
		return s.promote(ctx, who, force, progress)
	}
	record, err := s.read(ctx)
	if err != nil {
		return err
	}
	answer, err := s.change(ctx, &failover.Request{
		Replaces: record.Epoch, RaiseTo: max(record.Epoch, s.epoch()) + 1,
		Holder: s.node.self.Name, Mode: failover.Alone, Operator: true,
	})
	if err != nil {
		return err
	}
	if !answer.Granted {
		return &control.Refusal{Message: answer.Reason}
	}
	return s.promote(ctx, who, force, progress)
}

// promote makes every volume serve. The record names this node, alone.
func (s *service) promote(ctx context.Context, who, force string, progress func(control.Progress)) error {
	done := make(chan struct{}, len(s.volumes))
	for _, v := range s.volumes {
		if err := v.promote(ctx, force, func() { done <- struct{}{} }); err != nil {
			return errors.Join(s.notPromotable(v, err), s.demote())
		}
	}
	if err := s.promoted(ctx, done); err != nil {
		return errors.Join(err, s.demote())
	}
	s.mu.Lock()
	s.role, s.right, s.hold, s.since = rolePrimary, mirror.RightAlone, false, time.Now()
	clear(s.asked)
	s.mu.Unlock()
	s.node.events.Add(control.Event{Service: s.cfg.Name, Kind: "role", Old: "none", New: "primary", Reason: force, Who: who})
	progress(control.Progress{Text: fmt.Sprintf("%s serves %s in epoch %d", s.node.self.Name, s.cfg.Name, s.epoch())})
	s.poke()
	return nil
}

// promote makes the volume serve. The nodes may have met since promotable looked:
// then it waits again.
func (v *volume) promote(ctx context.Context, force string, then func()) error {
	ctx, cancel := context.WithTimeout(ctx, meetTimeout)
	defer cancel()
	for {
		var err error
		v.do(func(now time.Duration) {
			v.engine.SetHolder(true)
			err = v.engine.Promote(now, mirror.RightAlone, force, then)
			v.dispatch()
		})
		if !errors.Is(err, mirror.ErrMeeting) || ctx.Err() != nil {
			return err
		}
		wait(ctx, 20*time.Millisecond)
	}
}

// promoteTimeout is how long a volume may take to become primary: one header on
// a disk that works.
const promoteTimeout = 30 * time.Second

// promoted waits until every volume serves.
func (s *service) promoted(ctx context.Context, done <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, promoteTimeout)
	defer cancel()
	tick := time.NewTicker(mirror.TickEvery)
	defer tick.Stop()
	for open := len(s.volumes); open > 0; {
		select {
		case <-done:
			open--
		case <-tick.C:
			for _, v := range s.volumes {
				if why := v.status.Load().DiskFailed; why != "" {
					return fmt.Errorf("volume %s: the disk has failed: %s", v.cfg.Name, why)
				}
			}
		case <-ctx.Done():
			return fmt.Errorf("become primary: %w", ctx.Err())
		}
	}
	return nil
}

// demote takes back what promote did for some volumes.
func (s *service) demote() error {
	s.each(func(v *volume, now time.Duration) {
		v.engine.Demote(now, block.ShuttingDown, func() {})
		v.expel()
	})
	return nil
}

// chosen are the volumes that an action is about.
func (s *service) chosen(a control.Action) ([]*volume, error) {
	if a.Volume == "" {
		return s.volumes, nil
	}
	for _, v := range s.volumes {
		if v.cfg.Name == a.Volume {
			return []*volume{v}, nil
		}
	}
	return nil, fmt.Errorf("volume %q does not belong to service %s", a.Volume, s.cfg.Name)
}

// verify compares the disks of the volumes, one after the other.
func (s *service) verify(ctx context.Context, a control.Action, progress func(control.Progress)) error {
	volumes, err := s.chosen(a)
	if err != nil {
		return err
	}
	var different int64
	for _, v := range volumes {
		v.do(func(now time.Duration) {
			err = v.engine.Verify(now, a.Args["repair"] == "true")
			v.dispatch()
		})
		if err != nil {
			return fmt.Errorf("verify %s: %w", v.cfg.Name, err)
		}
		for {
			st := v.status.Load()
			p := st.Verify
			progress(control.Progress{Text: "verify " + v.cfg.Name, Done: p.Done * block.Size, Total: p.Total * block.Size})
			if p.Ended != 0 {
				if p.Done != p.Total {
					return fmt.Errorf("verify %s %s", v.cfg.Name, st.Verified)
				}
				different += p.Different
				break
			}
			if wait(ctx, mirror.TickEvery); ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	switch {
	case different == 0:
		return nil
	case a.Args["repair"] == "true":
		progress(control.Progress{Text: fmt.Sprintf("%d blocks differ and are being copied from %s", different, s.node.self.Name)})
		return s.caughtUp(ctx, volumes, progress)
	}
	return &control.Refusal{
		Message: fmt.Sprintf("%d blocks (%d KiB) differ between the disks", different, different*block.Size>>10),
		Hint:    "find out which disk is wrong; `twinbd verify --repair` or `twinbd resync` copies from the primary",
	}
}

// resync copies marked blocks, or all, to the peer.
func (s *service) resync(ctx context.Context, a control.Action, progress func(control.Progress)) error {
	volumes, err := s.chosen(a)
	if err != nil {
		return err
	}
	for _, v := range volumes {
		v.do(func(now time.Duration) {
			err = v.engine.Resync(now, a.Args["full"] == "true")
			v.dispatch()
		})
		if err != nil {
			return fmt.Errorf("resync %s: %w", v.cfg.Name, err)
		}
	}
	return s.caughtUp(ctx, volumes, progress)
}

// caughtUp waits until the volumes are mirrored again.
func (s *service) caughtUp(ctx context.Context, volumes []*volume, progress func(control.Progress)) error {
	for _, v := range volumes {
		for {
			st := v.status.Load()
			if st.Session == mirror.Mirroring && st.DirtyBlocks == 0 {
				break
			}
			text := "waiting for " + s.node.peer.Name
			if st.Session == mirror.Resyncing {
				text = "resync " + v.cfg.Name
			}
			progress(control.Progress{Text: text, Done: st.Resync.Done * block.Size, Total: st.Resync.Total * block.Size})
			if wait(ctx, mirror.TickEvery); ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	return nil
}
