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
		return s.serve(ctx, failover.Command{Verb: failover.CommandPrim, Who: a.Who}, progress)
	case "primforce":
		force := fmt.Sprintf("primforce by %s at %s", a.Who, time.Now().UTC().Format(time.RFC3339))
		return s.serve(ctx, failover.Command{Verb: failover.CommandForce, Who: a.Who, Force: force}, progress)
	case "start":
		return s.startAll(ctx, a, progress)
	case "stop":
		return s.stopAll(ctx, a, progress)
	case "switch":
		return s.switchFrom(ctx, a, progress)
	case "maintenance":
		return s.maintenanceBoth(ctx, a, progress)
	case "split":
		return s.showSplit(ctx, a, progress)
	case "resolve":
		return s.resolve(ctx, a, progress)
	case "why":
		progress(control.Progress{Text: s.why()})
		return nil
	case "attach":
		return s.attachByHand(ctx, a, progress)
	case "detach":
		return s.detachByHand(ctx, a, progress)
	case "verify":
		return s.verify(ctx, a, progress)
	case "resync":
		return s.resync(ctx, a, progress)
	}
	return control.ErrUnknownVerb
}

// command gives the machine an operator's word, and returns what it refuses. What
// is shown afterwards has taken the word into account.
func (s *service) command(ctx context.Context, c failover.Command) error {
	var err error
	taken := make(chan struct{})
	if !s.post(ctx, posted{taken: taken, in: func(m *failover.Machine, now time.Duration) (actions []failover.Action) {
		actions, err = m.Command(now, c)
		return actions
	}}) {
		return ctx.Err()
	}
	select {
	case <-taken:
		if refused, ok := errors.AsType[*failover.Refused](err); ok {
			return &control.Refusal{Message: refused.Reason, Hint: refused.Hint}
		}
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// lookEvery is how often a command looks whether it has come true.
const lookEvery = 20 * time.Millisecond

// until waits until the machine is as wanted, and shows how it gets there. It
// ends early with an error that problem finds.
func (s *service) until(ctx context.Context, progress func(control.Progress), done func(*failover.Machine) bool, problem func(*failover.Machine) error) error {
	said := ""
	for {
		m := &s.shown.Load().machine
		if done(m) {
			return nil
		}
		if problem != nil {
			if err := problem(m); err != nil {
				return err
			}
		}
		if text := fmt.Sprintf("%s: %s", m.State(), m.Reason()); text != said {
			said = text
			progress(control.Progress{Text: text})
		}
		if wait(ctx, lookEvery); ctx.Err() != nil {
			return fmt.Errorf("given up waiting in state %s: %s", m.State(), m.Reason())
		}
	}
}

// meetTimeout is how long prim waits for the nodes to compare what they have, and
// for the witness to answer.
const meetTimeout = 5 * time.Second

// serve makes this node the primary. What it can refuse may depend on what the
// nodes are just finding out, so that is waited for first.
func (s *service) serve(ctx context.Context, c failover.Command, progress func(control.Progress)) error {
	meeting, cancel := context.WithTimeout(ctx, s.cfg.Pace.Timeout+meetTimeout)
	s.until(meeting, func(control.Progress) {}, s.informed, nil)
	cancel()
	s.put(ctx, s.look) // it judges what the volumes are now
	if err := s.command(ctx, c); err != nil {
		return err
	}
	ctx, cancel = context.WithTimeout(ctx, 2*s.cfg.Pace.Timeout+promoteTimeout)
	defer cancel()
	err := s.until(ctx, progress, func(m *failover.Machine) bool { return m.Serves(m.Term()) }, s.refusal)
	if err != nil {
		return err
	}
	progress(control.Progress{Text: fmt.Sprintf("%s serves %s in epoch %d", s.node.self.Name, s.cfg.Name, s.shown.Load().machine.Epoch())})
	return nil
}

// informed reports whether what speaks for or against serving here is known.
// Disks that have never held data, or have failed, have nothing to compare: what
// the peer's have is in its beat.
func (s *service) informed(m *failover.Machine) bool {
	if m.Informed() {
		return true
	}
	for _, v := range s.volumes {
		if st := v.status.Load().State; st != bitmap.Blank && st != bitmap.Fresh && st != bitmap.Failed {
			return false
		}
	}
	return m.PeerAudible() && (s.node.witness == nil || m.ReachesWitness())
}

// refusal is what the witness, or a volume, has said against it.
func (s *service) refusal(m *failover.Machine) error {
	if why := m.Problem(); why != "" {
		return &control.Refusal{Message: why, Hint: "look at `twinbd status`, then try again"}
	}
	return nil
}

// start lets the service run on this node, as the primary or as the secondary.
func (s *service) start(ctx context.Context, a control.Action, progress func(control.Progress)) error {
	if err := s.command(ctx, failover.Command{Verb: failover.CommandStart, Who: a.Who}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*s.cfg.Pace.Timeout+meetTimeout)
	defer cancel()
	s.until(ctx, progress, func(m *failover.Machine) bool { return m.Colour() == failover.Ready }, nil)
	m := &s.shown.Load().machine
	progress(control.Progress{Text: fmt.Sprintf("%s: %s", m.State(), m.Reason())})
	return nil
}

// stop ends the service on this node; the peer serves on, unless all is said.
func (s *service) stop(ctx context.Context, a control.Action, progress func(control.Progress)) error {
	verb := failover.CommandStop
	if a.Args["all"] == "true" {
		verb = failover.CommandStopAll
	}
	if err := s.command(ctx, failover.Command{Verb: verb, Who: a.Who}); err != nil {
		return err
	}
	return s.until(ctx, progress, func(m *failover.Machine) bool { return m.State() == failover.StateStop && m.Stands() }, nil)
}

// exchangeRoles is the planned switch, asked at either node.
func (s *service) exchangeRoles(ctx context.Context, a control.Action, progress func(control.Progress)) error {
	began := time.Now()
	if err := s.command(ctx, failover.Command{Verb: failover.CommandSwitch, Who: a.Who}); err != nil {
		return err
	}
	err := s.until(ctx, progress,
		func(m *failover.Machine) bool { return !m.Serving() && m.PeerServes() && m.PeerAudible() },
		func(m *failover.Machine) error {
			if m.Serving() && !m.Leaving() {
				return &control.Refusal{Message: fmt.Sprintf("the switch was called off: %s", m.Reason()), Hint: "`twinbd events` says why"}
			}
			return nil
		})
	if err != nil {
		return err
	}
	progress(control.Progress{Text: fmt.Sprintf("%s serves %s; the switch took %v%s",
		s.node.peer.Name, s.cfg.Name, time.Since(began).Round(time.Millisecond), s.pauseText(ctx, began))})
	return nil
}

func (s *service) maintenance(ctx context.Context, a control.Action, _ func(control.Progress)) error {
	verb := failover.CommandAttention
	if a.Args["on"] == "true" {
		verb = failover.CommandRest
	}
	return s.command(ctx, failover.Command{Verb: verb, Who: a.Who})
}

// quit ends the service here because the process ends.
func (s *service) quit(ctx context.Context) error {
	if err := s.command(ctx, failover.Command{Verb: failover.CommandQuit}); err != nil {
		return err
	}
	return s.until(ctx, func(control.Progress) {}, func(m *failover.Machine) bool { return m.Gone() }, nil)
}
