// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twinbd/twinbd/failover"
	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/mirror"
)

// perform carries out what the machine wants done, each before the next: what is
// stored is durable before anything after it happens. Nothing here waits for a
// loop, the network or a command.
func (s *service) perform(ctx context.Context, actions []failover.Action) error {
	for i := range actions {
		a := &actions[i]
		switch a.Do {
		case failover.DoStore:
			if err := s.store(a.State); err != nil {
				return err
			}
		case failover.DoBeat:
			s.node.peers.say(s, a.Beat)
		case failover.DoQuery:
			s.exchange(ctx, a.Nonce, func(ctx context.Context) (failover.Answer, error) { return s.node.witness.Read(ctx, a.Query) })
		case failover.DoChange:
			s.asks(&a.Request)
			if !s.machine.Serving() && a.Request.Holder == s.node.self.Name {
				s.app.addresses.probeAhead(ctx) // while the witness is asked
			}
			s.exchange(ctx, a.Nonce, func(ctx context.Context) (failover.Answer, error) { return s.node.witness.Change(ctx, a.Request) })
		case failover.DoPing:
			go s.ping(ctx, a.Nonce)
		case failover.DoFence:
			go s.fence(ctx)
		case failover.DoRight:
			s.setRight(a.Right, a.Until)
		case failover.DoNames:
			s.recordNamesPeer()
		case failover.DoPromote:
			s.setRight(a.Right, a.Until)
			go s.promote(ctx, a.Force, !s.machine.PeerAudible())
		case failover.DoDemote:
			s.demote(ctx, false)
		case failover.DoExpel:
			s.shut()
			s.demote(ctx, true)
		case failover.DoUp:
			s.app.up(ctx, a.Epoch)
		case failover.DoDown:
			s.app.down(ctx, a.Epoch, false)
		case failover.DoKill:
			s.app.down(ctx, a.Epoch, true)
		case failover.DoHide:
			s.app.hide()
		case failover.DoShow:
			s.app.show()
		case failover.DoConnect:
			s.connect(!a.Off)
		case failover.DoSource:
			s.source(!a.Off)
		case failover.DoEvent:
			e := a.Event
			if e.Kind == "maintenance" {
				s.app.rest(e.New == "on")
			}
			s.event(e.Kind, e.Old, e.New, e.Reason, e.Who)
		default:
			panic(fmt.Sprintf("node: action %v is not known", a.Do))
		}
	}
	s.held.Store(s.machine.Stands() || s.machine.GoingAlone())
	return nil
}

// store makes the node's own state durable. A node that cannot must not decide
// anything any more: it ends, and its peer takes over.
func (s *service) store(state failover.NodeState) error {
	known := s.file.State().View
	if err := s.file.Store(state); err != nil {
		return fmt.Errorf("remember what this node knows: %w", err)
	}
	s.learned(known, state.View)
	number, holds := state.Holder(s.node.self.Name)
	s.each(func(v *volume, _ time.Duration) { v.engine.SetHolder(number, holds) })
	return nil
}

// exchange asks the witness, in place of what was asked before.
func (s *service) exchange(ctx context.Context, nonce uint64, ask func(context.Context) (failover.Answer, error)) {
	if s.asking != nil {
		s.asking()
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Pace.Timeout)
	s.asking = cancel
	go func() {
		defer cancel()
		answer, err := ask(ctx)
		s.node.noteWitness(err)
		if err == nil {
			s.put(ctx, func(m *failover.Machine, now time.Duration) []failover.Action { return m.Answered(now, nonce, answer) })
		}
	}()
}

// setRight tells every volume what it may acknowledge. The end of the lease
// counts from here on, on whatever thread a reply is about to leave (rule 20); the
// engine learns the right in its turn.
//
// A node that stops in order gives its right up while nobody else has it: what it
// had decided until then, and its word that it stops, may leave while the lease
// would have lasted.
func (s *service) setRight(r failover.Right, until time.Duration) {
	right := mirrorRight(r)
	if before := mirror.Right(s.right.Swap(uint32(right))); before == mirror.RightAlone || right == mirror.RightAlone {
		s.lone++
	}
	lone := s.lone
	if right != mirror.RightNone || !s.machine.LeavesInOrder() {
		for _, v := range s.volumes {
			v.lease.extend(until)
		}
	}
	if right == mirror.RightAlone {
		s.mu.Lock()
		clear(s.asked)
		s.mu.Unlock()
	}
	s.each(func(v *volume, now time.Duration) {
		if v.engine.NeedsRight() && v.engine.Status().Right != right {
			v.engine.SetRight(now, right)
		}
		v.publish()
		if v.heard.Swap(lone) != lone {
			s.poke()
		}
	})
}

func mirrorRight(r failover.Right) mirror.Right {
	switch r {
	case failover.RightPair:
		return mirror.RightPair
	case failover.RightAlone:
		return mirror.RightAlone
	}
	return mirror.RightNone
}

// source lets volumes be copied to the peer while none is served here, or no
// longer. One that is served, or about to be, has its right from elsewhere.
func (s *service) source(on bool) {
	right := mirror.RightNone
	if on {
		right = mirror.RightAlone
	}
	s.each(func(v *volume, now time.Duration) {
		if !v.engine.NeedsRight() {
			v.engine.SetRight(now, right)
		}
	})
}

// shut lets no reply leave any more.
func (s *service) shut() {
	for _, v := range s.volumes {
		v.lease.extend(0)
	}
}

// recordNamesPeer: a disk here failed; the peer's is the one that counts (rule
// 18).
func (s *service) recordNamesPeer() {
	s.mu.Lock()
	clear(s.asked)
	s.mu.Unlock()
	s.each(func(v *volume, now time.Duration) {
		v.engine.RecordNamesPeer(now)
	})
}

// connect lets the volumes connect to the peer, or ends their sessions.
func (s *service) connect(on bool) {
	s.held.Store(!on)
	if on {
		return
	}
	s.each(func(v *volume, now time.Duration) {
		v.engine.Bye(now, s.node.self.Name+" has stopped the service")
		if v.data != nil {
			v.data.Flush()
		}
		v.engine.Disconnect(now, "the service is stopped here")
	})
}

// promoteTimeout is how long a volume may take to become primary: one header on
// a disk that works, after what the old primary sent has ended.
const promoteTimeout = 30 * time.Second

// promote makes every volume serve, and tells the machine. A peer that is silent
// is not waited for: its session ends first, which else lasts for peer-timeout.
func (s *service) promote(ctx context.Context, force string, silent bool) {
	if silent {
		s.each(func(v *volume, now time.Duration) {
			v.engine.Disconnect(now, s.node.peer.Name+" is silent on every path")
		})
	}
	err := s.promoteAll(ctx, force)
	s.put(ctx, func(m *failover.Machine, now time.Duration) []failover.Action { return m.Promoted(now, err) })
}

func (s *service) promoteAll(ctx context.Context, force string) error {
	ctx, cancel := context.WithTimeout(ctx, promoteTimeout)
	defer cancel()
	done := make(chan struct{}, len(s.volumes))
	for _, v := range s.volumes {
		if err := v.promote(ctx, force, func() { done <- struct{}{} }); err != nil {
			return fmt.Errorf("volume %s: %w", v.cfg.Name, err)
		}
	}
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
			return ctx.Err()
		}
	}
	return nil
}

// promote makes the volume serve, by the right that the service has at that
// moment. The nodes may just be comparing what they have: then it waits.
func (v *volume) promote(ctx context.Context, force string, then func()) error {
	for {
		var err error
		if !v.do(func(now time.Duration) {
			err = v.engine.Promote(now, mirror.Right(v.service.right.Load()), force, then)
		}) {
			return errStopping
		}
		if !errors.Is(err, mirror.ErrMeeting) && !errors.Is(err, mirror.ErrPeerServes) || ctx.Err() != nil {
			return err
		}
		wait(ctx, 5*time.Millisecond)
	}
}

// demote stops serving. In order, what is under way ends with an error that
// says so, and both disks are flushed; by force, clients are cut off at once,
// and nothing that was not acknowledged will be.
func (s *service) demote(ctx context.Context, force bool) {
	var open sync.WaitGroup
	for _, v := range s.volumes {
		open.Add(1)
		done := sync.OnceFunc(open.Done)
		if !v.post(func(now time.Duration) {
			if force {
				v.cutOff()
			}
			v.engine.Demote(now, block.ShuttingDown, func() {
				v.letGo()
				done()
			})
			v.expel()
		}) {
			done()
		}
	}
	s.mu.Lock()
	clear(s.asked)
	s.mu.Unlock()
	go func() {
		open.Wait()
		s.put(ctx, (*failover.Machine).Demoted)
	}()
}

// flushes is how often volumes are flushed before they stop serving in order:
// the first time takes what has come together, the second what came meanwhile, and
// what is left for the pause is little.
const flushes = 2

// flushPatience bounds these flushes: a volume that waits for its peer, or for a
// right, flushes when it stops, or never.
const flushPatience = 2 * time.Second

// flushAhead flushes all volumes while clients are served still.
func (s *service) flushAhead(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, flushPatience)
	defer cancel()
	for range flushes {
		done := make(chan struct{}, len(s.volumes))
		for _, v := range s.volumes {
			v.post(func(now time.Duration) { v.engine.Flush(now, func() { done <- struct{}{} }) })
		}
		for range s.volumes {
			select {
			case <-done:
			case <-ctx.Done():
				return
			}
		}
	}
}
