// SPDX-License-Identifier: Apache-2.0

package application

import (
	"context"
	"fmt"
)

// Term is the time from the decision that the service is to be up until the
// decision that it is not.
type Term struct {
	application *Application
	order       Order
	over        bool // guarded by application.mu
}

// Context ends when the term does, with ErrEnded or ErrForced as cause. It is
// for what accompanies the service, such as a Checker.
func (t *Term) Context() context.Context { return t.order.span.ctx }

// Order is for the commands of what accompanies the service.
func (t *Term) Order() Order { return t.order }

// Up takes the steps up in order. When one fails, it and those before it are
// taken down again, in reverse, and the term is over; the error names the step.
// When Down ends the term, Up stops where it is, returns the cause, and leaves
// the rest to Down.
func (t *Term) Up() error {
	a := t.application
	if err := a.take(t.order.span.ctx); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	defer a.give()
	for i, step := range a.config.Steps {
		err := context.Cause(t.order.span.ctx)
		if err == nil {
			err = a.run(t.order, step, Up)
		}
		if err != nil {
			return fmt.Errorf("start: %w", t.giveUp(err, a.config.Steps[:i+1]))
		}
	}
	if err := context.Cause(t.order.span.ctx); err != nil {
		return fmt.Errorf("start: %w", t.giveUp(err, a.config.Steps))
	}
	return nil
}

// giveUp ends a term whose start has failed, and rolls it back, unless a Down
// has come in between and waits for the turn to do so.
func (t *Term) giveUp(failed error, steps []Step) error {
	a := t.application
	rollback := Order{t.order.Epoch, "the start has failed: " + failed.Error(), newSpan(context.WithoutCancel(t.order.span.ctx))}
	a.mu.Lock()
	if t.over {
		a.mu.Unlock()
		return failed
	}
	t.over = true
	t.order.span.finish(ErrEnded)
	a.downs[rollback.span] = Clean
	a.mu.Unlock()

	defer a.endDown(rollback)
	a.outlast(rollback, t.order.span)
	if err := a.undo(rollback, steps, Down); err != nil {
		return failures{failed, err}
	}
	return failed
}

// Restart takes the steps that are marked Application down and up again, within
// the term. A Down that fails does not keep it from the Ups, and is no error
// when they succeed. When they fail the other steps stay up, and so does the
// term.
func (t *Term) Restart(reason string) error {
	a := t.application
	if err := a.take(t.order.span.ctx); err != nil {
		return fmt.Errorf("restart: %w", err)
	}
	defer a.give()
	var steps []Step
	for _, step := range a.config.Steps {
		if step.Application {
			steps = append(steps, step)
		}
	}
	order := t.order
	order.Reason = reason
	var failed failures
	if err := a.undo(order, steps, Down); err != nil {
		failed = append(failed, err)
	}
	for _, step := range steps {
		err := context.Cause(order.span.ctx)
		if err == nil {
			err = a.run(order, step, Up)
		}
		if err != nil {
			return fmt.Errorf("restart: %w", append(failed, err))
		}
	}
	return nil
}
