// SPDX-License-Identifier: Apache-2.0

package application

import (
	"context"
	"fmt"
	"os"
	"time"
)

// Func is a step's work in one direction. It ends soon after ctx does; Order is
// for the commands that it runs.
type Func func(ctx context.Context, order Order) error

// Step is one thing that a service needs on the node that serves it. Ups run in
// the order of the steps, Downs in the reverse order.
type Step struct {
	Name string // as in "mount pgdata"; it begins an error and names the line in the event log

	// Up is nil where there is nothing to do. It succeeds, quickly, when the
	// thing is up already: a daemon that was restarted does not know.
	Up Func

	// Down is nil where there is nothing to undo. It succeeds when the thing is
	// not up, or only half.
	Down Func

	// Force is called instead of Down when the right is lost: it waits for
	// nobody and gives up what is not on the disk. nil: Down, shortly.
	Force Func

	// UpLimit and DownLimit end the function's context; 0: no limit.
	UpLimit, DownLimit time.Duration

	// Application marks the steps that a restart takes down and up again.
	Application bool
}

// Direction is which of a step's functions ran.
type Direction string

// The directions.
const (
	Up    Direction = "up"
	Down  Direction = "down"
	Force Direction = "force"
)

// StepEvent is one line of the event log.
type StepEvent struct {
	Name      string
	Direction Direction
	Epoch     uint64
	Took      time.Duration
	Err       error // nil: it succeeded
}

// StepError says which step failed. It wraps the step's own error.
type StepError struct {
	Step      string
	Direction Direction
	Err       error
}

func (e *StepError) Error() string {
	if e.Direction == Up {
		return e.Step + ": " + e.Err.Error()
	}
	return "undo " + e.Step + ": " + e.Err.Error()
}

func (e *StepError) Unwrap() error { return e.Err }

// limitError is the cause of a context that a limit ended.
type limitError struct{ limit time.Duration }

func (e limitError) Error() string { return fmt.Sprintf("took longer than its limit of %v", e.limit) }
func (e limitError) Unwrap() error { return os.ErrDeadlineExceeded }

func withLimit(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if limit <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, limit, limitError{limit})
}

// work chooses a step's function for a direction, and its limit.
func (a *Application) work(s Step, d Direction) (Func, time.Duration, Direction) {
	switch {
	case d == Up:
		return s.Up, s.UpLimit, Up
	case d == Down:
		return s.Down, s.DownLimit, Down
	case s.Force != nil:
		return s.Force, a.config.ForceLimit, Force
	case s.DownLimit > 0:
		return s.Down, min(s.DownLimit, a.config.ForceLimit), Down
	default:
		return s.Down, a.config.ForceLimit, Down
	}
}

// run takes one step in one direction and reports it. The caller has the turn.
func (a *Application) run(order Order, s Step, d Direction) error {
	work, limit, d := a.work(s, d)
	if work == nil {
		return nil
	}
	ctx, cancel := withLimit(order.span.ctx, limit)
	defer cancel()
	began := time.Now()
	err := a.call(ctx, order, s.Name, work)
	if a.config.Observe != nil {
		a.config.Observe(StepEvent{s.Name, d, order.Epoch, time.Since(began), err})
	}
	if err != nil {
		return &StepError{s.Name, d, err}
	}
	return nil
}

// call waits for the work, but not for ever: work that stays although its
// context has ended is left behind, so that a hung stop cannot keep the forced
// one from its steps. Begin then refuses until it has returned.
func (a *Application) call(ctx context.Context, order Order, name string, work Func) error {
	returned := make(chan error, 1)
	a.enter(name)
	go func() {
		err := work(ctx, order)
		a.leave(name)
		returned <- err
	}()
	var err error
	select {
	case err = <-returned:
	case <-ctx.Done():
		if !a.linger(order, returned, &err) {
			return fmt.Errorf("does not return although it was told to end (%w); look for processes in state D, and reboot this node if they stay", context.Cause(ctx))
		}
	}
	// A function may say "context canceled" and no more; the cause says why.
	if cause := context.Cause(ctx); err != nil && cause != nil && err == ctx.Err() {
		return cause
	}
	return err
}

// linger waits for work whose context has ended, and reports whether it came.
func (a *Application) linger(order Order, returned <-chan error, err *error) bool {
	patience := time.NewTimer(a.config.Patience)
	defer patience.Stop()
	forced := order.forced()
	for {
		select {
		case *err = <-returned:
			return true
		case <-forced:
			forced = nil
			patience.Reset(min(a.config.Patience, forcedPatience))
		case <-patience.C:
			return false
		}
	}
}
