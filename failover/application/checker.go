// SPDX-License-Identifier: Apache-2.0

package application

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// DefaultForget is CheckConfig.Forget when that is 0.
const DefaultForget = 10 * time.Minute

// CheckConfig says how an application is watched. The functions are called from
// the goroutine of Run, one at a time.
type CheckConfig struct {
	Every    time.Duration // from the end of one check to the next
	Timeout  time.Duration // of one check
	Failures int           // in a row, before something is done; at least 1
	Restarts int           // tries on this node

	// Forget is for how long the checks have to succeed until the restarts
	// that were needed before no longer count; 0: DefaultForget.
	Forget time.Duration

	// Probe is one check. It ends soon after its context does.
	Probe func(ctx context.Context) error

	// Restart takes the application down and up again. One that fails counts as
	// another failure at once.
	Restart func(ctx context.Context, reason string) error

	// Failed says that this node cannot run the application. Who is told
	// decides what follows: perhaps nothing, for the peer has no good copy.
	// Checks go on, without further restarts. Recovered says that one succeeded.
	Failed    func(reason string)
	Recovered func()
}

// Checker watches an application while it is up.
type Checker struct {
	config CheckConfig
	count  counter

	mu     sync.Mutex
	paused bool
	change chan struct{} // closed when paused changes
}

// NewChecker returns a Checker that does nothing before Run.
func NewChecker(config CheckConfig) *Checker {
	if config.Forget <= 0 {
		config.Forget = DefaultForget
	}
	return &Checker{
		config: config,
		count: counter{
			failures: max(1, config.Failures),
			restarts: config.Restarts,
			forget:   max(1, int(config.Forget/max(1, config.Every))),
		},
		change: make(chan struct{}),
	}
}

// Pause suspends the checks, as for a maintenance: one that is under way is
// ended and does not count, and a restart does not begin. Resuming begins to
// count anew. Failed and Recovered are not called while it lasts, except by a
// Run that is just calling them.
func (c *Checker) Pause(paused bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.paused != paused {
		c.paused = paused
		close(c.change)
		c.change = make(chan struct{})
	}
}

func (c *Checker) state() (paused bool, change <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.paused, c.change
}

// Run checks until ctx ends, which is the term's. The first check comes after
// Every: applications are seldom up the moment that their start returns. After
// ctx has ended nothing is called.
func (c *Checker) Run(ctx context.Context) {
	for ctx.Err() == nil {
		paused, change := c.state()
		if paused {
			c.count.reset()
			select {
			case <-change:
			case <-ctx.Done():
			}
			continue
		}
		// Ends with the term, and with a pause.
		active, end := context.WithCancel(ctx)
		go func() {
			select {
			case <-change:
				end()
			case <-active.Done():
			}
		}()
		c.round(ctx, active)
		end()
	}
}

// round waits, checks once, and does what follows.
func (c *Checker) round(term, active context.Context) {
	wait, cancel := context.WithTimeout(active, c.config.Every)
	<-wait.Done()
	cancel()
	if active.Err() != nil {
		return
	}
	probe, cancel := withLimit(active, c.config.Timeout)
	err := c.config.Probe(probe)
	cancel()
	if active.Err() != nil {
		return
	}
	next := c.count.observe(err == nil)
	for next == restart && active.Err() == nil {
		reason := fmt.Sprintf("restart %d of %d after %s: %v", c.count.restarted, c.count.restarts, times(c.count.failures), err)
		// A restart that began is ended by the term only: one that a pause
		// interrupted would leave the application down.
		next = goOn
		if err = c.config.Restart(term, reason); err != nil && term.Err() == nil {
			next = c.count.escalate()
		}
	}
	if active.Err() != nil {
		c.count.untold(next)
		return
	}
	switch next {
	case failed:
		c.config.Failed(c.verdict(err))
	case recovered:
		c.config.Recovered()
	}
}

func (c *Checker) verdict(err error) string {
	if c.count.restarts == 0 {
		return fmt.Sprintf("the application failed: %v", err)
	}
	return fmt.Sprintf("the application failed and %d restarts did not help: %v", c.count.restarts, err)
}

func times(failures int) string {
	if failures == 1 {
		return "a failed check"
	}
	return fmt.Sprintf("%d failed checks in a row", failures)
}
