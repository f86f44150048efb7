// SPDX-License-Identifier: Apache-2.0

package application

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Commands is the step of the user's own: the start and stop lists of a
// service. An entry is a line for the shell, or unit:NAME.
type Commands struct {
	Runner *Runner
	Units  Units // for entries of the form unit:NAME

	// Start runs in order, until one fails. Stop runs in order too, all of it.
	// A unit of Start that Stop does not name is stopped after that.
	Start, Stop []string

	StartLimit, StopLimit time.Duration // of the whole lists; 0: none
}

// Step returns the step. Its Down also ends what the start commands have left
// behind; its Force kills that, and the units, and runs no command.
func (c Commands) Step(name string) Step {
	return Step{
		Name: name, Application: true,
		Up: c.start, Down: c.stop, Force: c.kill,
		UpLimit: c.StartLimit, DownLimit: c.StopLimit,
	}
}

func (c Commands) start(ctx context.Context, order Order) error {
	for i, entry := range c.Start {
		if err := c.entry(ctx, order, ActionStart, fmt.Sprintf("start command %d", i+1), entry); err != nil {
			return err
		}
	}
	return nil
}

// stop goes on past what fails. What it cannot stop it ends, so that the file
// system can be unmounted.
func (c Commands) stop(ctx context.Context, order Order) error {
	var failed failures
	for i, entry := range c.stops() {
		if err := c.entry(ctx, order, ActionStop, fmt.Sprintf("stop command %d", i+1), entry); err != nil {
			failed = append(failed, err)
		}
	}
	found, err := c.Runner.End(ctx, order)
	if err != nil {
		failed = append(failed, err)
	}
	if len(found) > 0 {
		c.Runner.config.Logger.InfoContext(ctx, "ended what the stop commands left running",
			"service", c.Runner.config.Service, "processes", list(found))
	}
	return failed.err()
}

// kill does all at once: what hangs must not use up the time of the others.
func (c Commands) kill(ctx context.Context, _ Order) error {
	var units []string
	for _, entry := range c.stops() {
		if unit, ok := unitOf(entry); ok && c.Units != nil {
			units = append(units, unit)
		}
	}
	errs := make([]error, len(units)+1)
	var all sync.WaitGroup
	for i, unit := range units {
		all.Go(func() {
			if err := c.Units.Kill(ctx, unit); err != nil {
				errs[i] = fmt.Errorf("kill unit %s: %w", unit, err)
			}
		})
	}
	_, errs[len(units)] = c.Runner.Kill(ctx)
	all.Wait()
	return failure(errs...)
}

// stops is Stop and, in reverse, the units of Start that it does not name.
func (c Commands) stops() []string {
	named := make(map[string]bool)
	for _, entry := range c.Stop {
		if unit, ok := unitOf(entry); ok {
			named[unit] = true
		}
	}
	all := slices.Clone(c.Stop)
	for _, entry := range slices.Backward(c.Start) {
		if unit, ok := unitOf(entry); ok && !named[unit] {
			named[unit] = true
			all = append(all, entry)
		}
	}
	return all
}

// Check runs the service's check once; an error says that it failed.
func (c Commands) Check(ctx context.Context, order Order, entry string) error {
	return c.entry(ctx, order, ActionCheck, "check", entry)
}

func (c Commands) entry(ctx context.Context, order Order, action Action, name, entry string) error {
	unit, ok := unitOf(entry)
	if !ok {
		return c.Runner.Run(ctx, order, Command{Name: name, Action: action, Line: entry, Stays: action == ActionStart})
	}
	ctx, unbind := order.bind(ctx)
	defer unbind(nil)
	var err error
	if c.Units == nil {
		err = errNoUnits
	} else if err = order.enter(func() error { return nil }); err == nil {
		err = c.unit(ctx, action, unit)
		order.leave()
	}
	if err != nil {
		return fmt.Errorf("%s (%q): %w", name, strings.TrimSpace(entry), err)
	}
	return nil
}

func (c Commands) unit(ctx context.Context, action Action, unit string) error {
	switch action {
	case ActionStart:
		return c.Units.Start(ctx, unit)
	case ActionStop:
		return c.Units.Stop(ctx, unit)
	default:
		return c.Units.Active(ctx, unit)
	}
}
