// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/failover"
	"github.com/twinbd/twinbd/failover/application"
	"github.com/twinbd/twinbd/internal/config"
)

// app is what runs on a service at the node that serves it: its addresses, then
// the user's commands. The machine says when; the order, the limits and the
// epochs are the application package's.
type app struct {
	service   *service
	addresses *addresses
	runner    *application.Runner
	commands  application.Commands
	steps     *application.Application
	checker   *application.Checker // nil: no check is configured

	mu      sync.Mutex
	term    *application.Term // the last that began
	started error             // how the start commands of this term ended
}

// Limits of what the user's commands may take: long enough for a database that
// replays its journal, and an end for what hangs.
const (
	startLimit = 5 * time.Minute
	stopLimit  = 2 * time.Minute
	fenceLimit = time.Minute
)

func newApp(s *service) (*app, error) {
	a := &app{service: s}
	var err error
	if a.addresses, err = newAddresses(s); err != nil {
		return nil, err
	}
	a.runner, err = application.NewRunner(context.Background(), application.RunnerConfig{
		Service: s.cfg.Name, Node: s.node.self.Name, Instance: s.node.self.State, Logger: s.log,
	})
	if err != nil {
		return nil, err
	}
	a.commands = application.Commands{
		Runner: a.runner, Units: units(), Start: s.cfg.Start, Stop: s.cfg.Stop,
		StartLimit: startLimit, StopLimit: stopLimit,
	}
	a.steps = application.New(application.Config{Steps: a.order(), Observe: a.observed})
	if c := s.cfg.Check; c != nil {
		a.checker = a.newChecker(c)
	}
	return a, nil
}

// order is the way up; down is the reverse.
func (a *app) order() []application.Step {
	steps := a.deviceSteps()
	if len(a.service.cfg.IP) > 0 {
		steps = append(steps, application.Step{
			Name: "addresses", Up: a.addresses.take, Down: a.addresses.leave, Force: a.addresses.forsake,
			UpLimit: addressLimit, DownLimit: addressLimit,
		})
	}
	if len(a.service.cfg.Start)+len(a.service.cfg.Stop) > 0 {
		step := a.tolerant(a.commands.Step("application"))
		step.Down, step.Force = a.service.disowned(step.Down), a.service.disowned(step.Force)
		steps = append(steps, step)
	}
	return append(steps, a.severSteps()...)
}

// tolerant keeps addresses and volumes where they are when the user's commands
// fail: no script stops the last good copy (rule 23). The machine hears of it,
// and decides.
func (a *app) tolerant(s application.Step) application.Step {
	up := s.Up
	s.Up = func(ctx context.Context, order application.Order) error {
		if a.service.running.Swap(false) {
			return nil // it was started by the process before this one
		}
		err := up(ctx, order)
		if ctx.Err() != nil {
			return err
		}
		a.mu.Lock()
		a.started = err
		a.mu.Unlock()
		return nil
	}
	return s
}

func (a *app) newChecker(c *config.Check) *application.Checker {
	s := a.service
	return application.NewChecker(application.CheckConfig{
		Every: c.Every, Timeout: c.Timeout, Failures: c.Failures, Restarts: c.Restarts,
		Probe: func(ctx context.Context) error { return a.commands.Check(ctx, a.now().Order(), c.Command) },
		Restart: func(_ context.Context, reason string) error {
			s.event("application", "up", "restart", reason, "")
			if err := a.now().Restart(reason); err != nil {
				return err
			}
			return a.startError()
		},
		Failed: func(reason string) {
			s.put(a.now().Context(), func(m *failover.Machine, now time.Duration) []failover.Action { return m.CheckFailed(now, reason) })
		},
		Recovered: func() {
			s.put(a.now().Context(), (*failover.Machine).Recovered)
		},
	})
}

// cleanUp ends what an earlier daemon has left running: a node that has just
// started has no right yet (rules 20, 22).
func (a *app) cleanUp(ctx context.Context) {
	if err := a.steps.Down(ctx, 0, "twinbd has started", application.Forced); err != nil {
		a.service.event("application", "", "down", "clean up after an earlier run: "+err.Error(), "")
	}
}

// up takes the application up in an epoch, and tells the machine how that went.
// A stop that comes in between wins.
func (a *app) up(ctx context.Context, epoch uint64) {
	a.show() // what was hidden when an earlier term ended is hidden no longer
	term, err := a.steps.Begin(ctx, epoch, "this node serves")
	if errors.Is(err, application.ErrBusy) { // what was killed is not gone yet
		go a.upLater(ctx, epoch)
		return
	}
	go a.begin(ctx, term, err)
}

func (a *app) upLater(ctx context.Context, epoch uint64) {
	for ctx.Err() == nil && a.service.wants(epoch) {
		wait(ctx, 20*time.Millisecond)
		if term, err := a.steps.Begin(ctx, epoch, "this node serves"); !errors.Is(err, application.ErrBusy) {
			a.begin(ctx, term, err)
			return
		}
	}
}

func (a *app) begin(ctx context.Context, term *application.Term, err error) {
	if err == nil {
		a.mu.Lock()
		a.term, a.started = term, nil
		a.mu.Unlock()
		if err = term.Up(); err == nil {
			err = a.startError()
		}
	}
	a.service.put(ctx, func(m *failover.Machine, now time.Duration) []failover.Action { return m.Up(now, err) })
	if a.checker != nil && term != nil {
		a.checker.Run(term.Context())
	}
}

// down takes the application down, and tells the machine.
func (a *app) down(ctx context.Context, epoch uint64, force bool) {
	how, reason := application.Clean, "this node stops serving"
	if force {
		how, reason = application.Forced, "this node has lost the right to serve"
	}
	go func() {
		err := a.steps.Down(ctx, epoch, reason, how)
		if !force {
			a.service.flushAhead(ctx)
		}
		a.service.put(ctx, func(m *failover.Machine, now time.Duration) []failover.Action { return m.Down(now, err) })
	}()
}

// rest stops the checks, and with off lets them go on.
func (a *app) rest(on bool) {
	if a.checker != nil {
		a.checker.Pause(on)
	}
}

func (a *app) now() *application.Term {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.term
}

func (a *app) startError() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.started
}

// observed gives every step its line in the event log, with its time.
func (a *app) observed(e application.StepEvent) {
	reason := fmt.Sprintf("took %v", e.Took.Round(100*time.Microsecond))
	if err := e.Err; err != nil {
		reason += ": " + err.Error()
	} else if err := a.startError(); err != nil && e.Name == "application" && e.Direction == application.Up {
		reason += ": " + err.Error()
	}
	a.service.log.Info("step", "name", e.Name, "direction", e.Direction, "epoch", e.Epoch, "reason", reason)
	a.service.node.events.Add(control.Event{
		Service: a.service.cfg.Name, Kind: "step", Old: e.Name, New: string(e.Direction), Reason: reason, Who: a.service.node.self.Name,
	})
}

// fence runs the command that makes sure that the peer is off.
func (s *service) fence(ctx context.Context) {
	err := s.app.runner.Fence(ctx, application.Order{Epoch: s.shown.Load().machine.Epoch(), Reason: "the peer is silent"}, s.cfg.Fence, s.node.peer.Name, fenceLimit)
	s.put(ctx, func(m *failover.Machine, now time.Duration) []failover.Action { return m.Fenced(now, err) })
}

// wants reports whether the machine still wants the application up in an epoch.
func (s *service) wants(epoch uint64) bool { return s.shown.Load().machine.Serves(epoch) }

func (a *app) hide()               { a.addresses.hide(true) }
func (a *app) show()               { a.addresses.hide(false) }
func (a *app) announce(why string) { a.addresses.announce(why) }
