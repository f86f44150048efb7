// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/failover"
)

// What an operator asks of one node and concerns both: the node does its part,
// and passes the rest on to the peer, which does it as if it had been asked there.
// Nothing is passed on twice.

// passed are the verbs that a node takes from its peer, and what each does here.
var passed = map[string]func(*service, context.Context, control.Action, func(control.Progress)) error{
	"start":       (*service).start,
	"stop":        (*service).stop,
	"switch":      (*service).exchangeRoles,
	"maintenance": (*service).maintenance,
	"resolve":     (*service).giveUp,
}

// both reports whether an action is for both nodes.
func both(a control.Action) bool { return a.Args["all"] == "true" }

// startAll starts the service on both nodes at the same time: which of them
// serves is found out by both.
func (s *service) startAll(ctx context.Context, a control.Action, progress func(control.Progress)) error {
	if !both(a) {
		return s.start(ctx, a, progress)
	}
	var mu sync.Mutex
	from := func(node string) func(control.Progress) {
		return func(p control.Progress) {
			mu.Lock()
			defer mu.Unlock()
			p.Text = node + ": " + p.Text
			progress(p)
		}
	}
	var here, there error
	var wg sync.WaitGroup
	wg.Go(func() { here = s.start(ctx, a, from(s.node.self.Name)) })
	wg.Go(func() { there = s.pass(ctx, a, from(s.node.peer.Name)) })
	wg.Wait()
	return s.halfDone(a, "started", here, there)
}

// stopAll stops the service on both nodes, first where it is served: its clients
// end, both disks are flushed, and the record stays `pair`; then the one that
// followed.
func (s *service) stopAll(ctx context.Context, a control.Action, progress func(control.Progress)) error {
	if !both(a) {
		return s.stop(ctx, a, progress)
	}
	m := &s.shown.Load().machine
	if !m.PeerAudible() || !m.PeerServes() {
		if err := s.stop(ctx, a, progress); err != nil {
			return err
		}
		return s.halfDone(a, "stopped", nil, s.pass(ctx, a, progress))
	}
	if err := s.pass(ctx, a, progress); err != nil {
		return fmt.Errorf("stop %s on %s, where it is served: %w", s.cfg.Name, s.node.peer.Name, err)
	}
	return s.stop(ctx, a, progress)
}

// switchFrom exchanges the roles, asked at either node.
func (s *service) switchFrom(ctx context.Context, a control.Action, progress func(control.Progress)) error {
	if m := &s.shown.Load().machine; !m.Serving() && m.PeerAudible() && m.PeerServes() {
		return s.pass(ctx, a, progress)
	}
	return s.exchangeRoles(ctx, a, progress)
}

// maintenanceBoth turns maintenance on or off on both nodes.
func (s *service) maintenanceBoth(ctx context.Context, a control.Action, progress func(control.Progress)) error {
	if err := s.maintenance(ctx, a, progress); err != nil {
		return err
	}
	on := "off"
	if a.Args["on"] == "true" {
		on = "on"
	}
	progress(control.Progress{Text: fmt.Sprintf("maintenance of %s is %s on %s", s.cfg.Name, on, s.node.self.Name)})
	if err := s.halfDone(a, on, nil, s.pass(ctx, a, progress)); err != nil {
		return err
	}
	progress(control.Progress{Text: fmt.Sprintf("maintenance of %s is %s on %s", s.cfg.Name, on, s.node.peer.Name)})
	return nil
}

// halfDone says what was done and what was not.
func (s *service) halfDone(a control.Action, done string, here, there error) error {
	self, peer, name := s.node.self.Name, s.node.peer.Name, s.cfg.Name
	switch {
	case here == nil && there == nil:
		return nil
	case there == nil:
		return fmt.Errorf("%s %s on %s (on %s it is %s): %w", a.Verb, name, self, peer, done, here)
	case here != nil:
		return fmt.Errorf("%s %s on %s: %w; on %s: %w", a.Verb, name, self, here, peer, there)
	}
	why := control.Refuse(there)
	hint := why.Hint
	if _, ok := errors.AsType[*unreached](there); ok {
		hint = fmt.Sprintf("when %s is back, run `twinbd %s %s` there, or this command again", peer, a.Verb, name)
		if a.Verb == "maintenance" {
			hint = fmt.Sprintf("when %s is back, run this command again", peer)
		}
	}
	return &control.Refusal{Message: fmt.Sprintf("%s is %s on %s only; on %s nothing was done: %s", what(a), done, self, peer, why.Message), Hint: hint}
}

// what is what an action is about, for people.
func what(a control.Action) string {
	if a.Verb == "maintenance" {
		return "maintenance of " + a.Service
	}
	return a.Service
}

// unreached is the error of a peer that could not be asked: nothing was done there.
type unreached struct{ error }

func (u *unreached) Unwrap() error { return u.error }

// silence is how long a peer that carries something out may say nothing.
const (
	silence   = 5 * time.Second
	sighEvery = time.Second
)

// pass asks the peer to carry an action out there, and returns how that went.
func (s *service) pass(ctx context.Context, a control.Action, progress func(control.Progress)) error {
	p := s.node.peers
	asking, cancel := context.WithTimeout(ctx, callTimeout)
	conn, err := p.dial(asking, preamble{Kind: kindCall})
	cancel()
	if err != nil {
		return &unreached{fmt.Errorf("%s is not reached: %w", s.node.peer.Name, err)}
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	c := call{Verb: callAct, Act: a.Verb, Service: a.Service, Volume: a.Volume, Args: a.Args, Who: a.Who}
	if err := writeMessage(conn, c); err != nil {
		return &unreached{fmt.Errorf("ask %s: %w", s.node.peer.Name, err)}
	}
	for {
		conn.SetReadDeadline(time.Now().Add(silence))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var r reply
		switch err := readMessage(conn, &r); {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return fmt.Errorf("%s went away before it said how it went: %w; hint: see `twinbd status` there", s.node.peer.Name, err)
		case r.Error != "":
			return &control.Refusal{Message: r.Error, Hint: r.Hint}
		case r.Done:
			return nil
		case r.Progress != nil:
			progress(*r.Progress)
		}
	}
}

// carryOut does what the peer has passed on, and says how it goes. The peer hears
// something every second, so that each notices when the other is gone.
func (n *Node) carryOut(ctx context.Context, conn net.Conn, c call) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex
	say := func(r reply) error {
		mu.Lock()
		defer mu.Unlock()
		conn.SetWriteDeadline(time.Now().Add(silence))
		err := writeMessage(conn, r)
		if err != nil {
			cancel(fmt.Errorf("%s went away: %w", n.peer.Name, err))
		}
		return err
	}
	var sighing sync.WaitGroup
	sighing.Go(func() {
		for wait(ctx, sighEvery); ctx.Err() == nil; wait(ctx, sighEvery) {
			say(reply{})
		}
	})
	s, do := n.service(c.Service), passed[c.Act]
	var err error
	switch {
	case do == nil:
		err = fmt.Errorf("%s does not take %.20q from its peer; hint: upgrade the older of the two nodes", n.self.Name, c.Act)
	case s == nil:
		err = fmt.Errorf("service %.80q is not in the configuration of %s", c.Service, n.self.Name)
	default:
		a := control.Action{Verb: c.Act, Service: c.Service, Volume: c.Volume, Args: c.Args, Who: c.Who + " at " + n.peer.Name}
		err = do(s, ctx, a, func(p control.Progress) { say(reply{Progress: &p}) })
	}
	cancel(nil)
	sighing.Wait()
	if err == nil {
		return say(reply{Done: true})
	}
	r := control.Refuse(err)
	return say(reply{Error: r.Message, Hint: r.Hint})
}

// wanted reports whether the operator wants the service to run here.
func (s *service) wanted() bool { return s.shown.Load().machine.Durable().Wanted == failover.WantStart }
