// SPDX-License-Identifier: Apache-2.0

package application

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// The defaults of Config.
const (
	DefaultForceLimit = 5 * time.Second
	DefaultPatience   = 15 * time.Second
)

// forcedPatience is how long a forced stop waits for work that it overtook.
// Commands are killed at once then, so that only what hangs in the kernel, or
// does not heed its context, stays longer.
const forcedPatience = time.Second

var (
	// ErrStale says that an order comes from an older epoch than the newest
	// that was carried out here. Nothing was done.
	ErrStale = errors.New("the order is from an older epoch")

	// ErrBusy says that a term cannot begin while another is up or being taken
	// down, or while work of an earlier one has not returned.
	ErrBusy = errors.New("the service is not down yet")
)

// Config is what an Application is made of.
type Config struct {
	Steps []Step

	// ForceLimit is the time of each step of a forced stop; 0: DefaultForceLimit.
	ForceLimit time.Duration

	// Patience is how long a step may take to return after its context has
	// ended; 0: DefaultPatience. It is longer than a Runner's Grace.
	Patience time.Duration

	// Observe is told of each step when it has run, one at a time, from the
	// goroutine that runs the steps; nil: nobody.
	Observe func(StepEvent)
}

// How says how a service is taken down.
type How int

const (
	// Clean is for a node that has the right still: each step gets its limit.
	Clean How = iota

	// Forced is for a node that has lost it: another may serve already.
	Forced
)

// Application takes one service up and down on one node. Its methods may be
// called by several goroutines; steps run one after the other.
type Application struct {
	config Config
	turn   chan struct{} // holds a token while somebody runs steps

	mu    sync.Mutex
	epoch uint64         // the highest that was ordered
	term  *Term          // the last one; nil: none yet
	downs map[*span]How  // stops and roll-backs that run or wait for the turn
	inner map[string]int // calls of steps' functions that have not returned, by name
}

// New returns an Application of which nothing is known to be up.
func New(config Config) *Application {
	if config.ForceLimit <= 0 {
		config.ForceLimit = DefaultForceLimit
	}
	if config.Patience <= 0 {
		config.Patience = DefaultPatience
	}
	return &Application{
		config: config,
		turn:   make(chan struct{}, 1),
		downs:  make(map[*span]How),
		inner:  make(map[string]int),
	}
}

// Begin decides that the service is to be up in an epoch. It waits for nothing:
// call it where the decision is made, and the Term's Up wherever there is time.
// A Down in between wins: that Up then refuses, however late it comes. The
// term lives no longer than ctx; its end by ctx alone leaves the steps up.
func (a *Application) Begin(ctx context.Context, epoch uint64, reason string) (*Term, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case epoch < a.epoch:
		return nil, fmt.Errorf("start in epoch %d: %w: epoch %d is known", epoch, ErrStale, a.epoch)
	case a.term != nil && !a.term.over:
		return nil, fmt.Errorf("start in epoch %d: %w: it is up since epoch %d; stop it first", epoch, ErrBusy, a.term.order.Epoch)
	case len(a.downs) > 0:
		return nil, fmt.Errorf("start in epoch %d: %w: it is being stopped", epoch, ErrBusy)
	case len(a.inner) > 0:
		return nil, fmt.Errorf("start in epoch %d: %w: %s of an earlier term has not returned", epoch, ErrBusy,
			strings.Join(slices.Sorted(maps.Keys(a.inner)), ", "))
	}
	a.epoch = epoch
	a.term = &Term{application: a, order: Order{epoch, reason, newSpan(ctx)}}
	return a.term, nil
}

// Down takes every step down, in reverse, also those of which it is unknown
// whether they are up, and goes on past those that fail. It ends the term
// first, at once, also while that is still on its way up. Calls come one after
// the other, except that a Forced one overtakes a Clean one, which then returns
// ErrForced. When ctx ends, the steps that are left are not run.
//
// A Down of an older epoch than the newest known returns ErrStale.
func (a *Application) Down(ctx context.Context, epoch uint64, reason string, how How) error {
	order, term, err := a.beginDown(ctx, epoch, reason, how)
	if err != nil {
		return err
	}
	defer a.endDown(order)
	if err := a.take(order.span.ctx); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	defer a.give()
	if term != nil {
		a.outlast(order, term.order.span)
	}
	direction := Down
	if how == Forced {
		direction = Force
	}
	if err := a.undo(order, a.config.Steps, direction); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	return nil
}

// beginDown ends, in the moment of the decision, what the stop replaces.
func (a *Application) beginDown(ctx context.Context, epoch uint64, reason string, how How) (Order, *Term, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if epoch < a.epoch {
		return Order{}, nil, fmt.Errorf("stop in epoch %d: %w: epoch %d is known", epoch, ErrStale, a.epoch)
	}
	a.epoch = epoch
	cause := ErrEnded
	if how == Forced {
		cause = ErrForced
		for other, how := range a.downs {
			if how == Clean {
				other.finish(ErrForced)
			}
		}
	}
	if a.term != nil {
		a.term.over = true
		a.term.order.span.finish(cause)
	}
	order := Order{epoch, reason, newSpan(ctx)}
	if how == Forced {
		close(order.span.force) // its own commands get no time either
	}
	a.downs[order.span] = how
	return order, a.term, nil
}

// outlast waits until what a finished span started is gone. A forced stop waits
// shortly: what is left then was killed, and hangs in the kernel.
func (a *Application) outlast(order Order, finished *span) {
	ctx := order.span.ctx
	select {
	case <-order.span.force:
		short, cancel := context.WithTimeout(ctx, forcedPatience)
		defer cancel()
		ctx = short
	default:
	}
	finished.wait(ctx)
}

func (a *Application) endDown(order Order) {
	a.mu.Lock()
	defer a.mu.Unlock()
	order.span.finish(ErrEnded)
	delete(a.downs, order.span)
}

// undo takes steps down in reverse, all of them, while the order holds.
func (a *Application) undo(order Order, steps []Step, direction Direction) error {
	var failed failures
	for _, step := range slices.Backward(steps) {
		if order.span.ctx.Err() != nil {
			failed = append(failed, fmt.Errorf("%s was not undone: %w", step.Name, context.Cause(order.span.ctx)))
			break
		}
		if err := a.run(order, step, direction); err != nil {
			failed = append(failed, err)
		}
	}
	return failed.err()
}

// take waits for the turn to run steps.
func (a *Application) take(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case a.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (a *Application) give() { <-a.turn }

func (a *Application) enter(step string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.inner[step]++
}

func (a *Application) leave(step string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.inner[step]--; a.inner[step] == 0 {
		delete(a.inner, step)
	}
}

// failures are errors that are told in one line.
type failures []error

func (f failures) err() error {
	if len(f) == 0 {
		return nil
	}
	return f
}

func (f failures) Error() string {
	lines := make([]string, len(f))
	for i, err := range f {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "; ")
}

func (f failures) Unwrap() []error { return f }

// failure is one error made of those that are not nil.
func failure(errs ...error) error {
	var failed failures
	for _, err := range errs {
		if err != nil {
			failed = append(failed, err)
		}
	}
	return failed.err()
}
