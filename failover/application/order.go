// SPDX-License-Identifier: Apache-2.0

package application

import (
	"context"
	"errors"
	"sync"
)

var (
	// ErrEnded is why what belongs to a term ends: the node was told to take
	// the service down.
	ErrEnded = errors.New("the term has ended")

	// ErrForced is why what belongs to a term, or to a clean stop, ends at
	// once: the node has lost the right. Nothing gets time to end by itself.
	ErrForced = errors.New("this node has lost the right to serve")
)

// Order is a decision that is being carried out: what steps and commands are
// told of it. While the decision holds they may start commands; after that
// they cannot. An Order that was made by hand, as for a fence, always holds.
type Order struct {
	Epoch  uint64
	Reason string // one sentence

	span *span
}

// enter starts something that lives no longer than the order, unless the order
// no longer holds. leave follows exactly one enter that returned nil.
func (o Order) enter(start func() error) error {
	if o.span == nil {
		return start()
	}
	return o.span.enter(start)
}

func (o Order) leave() {
	if o.span != nil {
		o.span.running.Done()
	}
}

// forced is closed when there is no time left to end by itself; nil: never.
func (o Order) forced() <-chan struct{} {
	if o.span == nil {
		return nil
	}
	return o.span.force
}

// bind returns ctx, ended also by the end of the order.
func (o Order) bind(ctx context.Context) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	if o.span == nil {
		return ctx, cancel
	}
	unbind := context.AfterFunc(o.span.ctx, func() { cancel(context.Cause(o.span.ctx)) })
	return ctx, func(cause error) {
		unbind()
		cancel(cause)
	}
}

// span is the time for which an order holds. A context alone would not do: who
// has looked at it may be late to act. Here to look and to start are one step,
// under the lock that finish takes too.
type span struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	force  chan struct{}

	mu      sync.Mutex
	running sync.WaitGroup // what entered
}

func newSpan(parent context.Context) *span {
	s := &span{force: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancelCause(parent)
	return s
}

func (s *span) enter(start func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	if err := start(); err != nil {
		return err
	}
	s.running.Add(1)
	return nil
}

// finish ends the span: when it returns, nothing more of it can start. The
// first cause stays; ErrForced takes effect though another came before.
func (s *span) finish(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cancel(cause)
	if !errors.Is(cause, ErrForced) {
		return
	}
	select {
	case <-s.force:
	default:
		close(s.force)
	}
}

// wait returns when all that entered has left, or ctx has ended. It is called
// after finish.
func (s *span) wait(ctx context.Context) {
	gone := make(chan struct{})
	go func() {
		s.running.Wait()
		close(gone)
	}()
	select {
	case <-gone:
	case <-ctx.Done():
	}
}
