// SPDX-License-Identifier: Apache-2.0

package crowd

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Burst is how often a Quiet logger says one thing at once, and Every how long it
// then waits before it says it again.
const (
	Burst = 5
	Every = 10 * time.Second
)

// Quiet is a logger for what others can cause at will: each message, whatever its
// attributes, is written Burst times, then once in Every, with how many were left
// out. Everything derived from it shares these counts.
func Quiet(log *slog.Logger) *slog.Logger {
	return slog.New(&quiet{log.Handler(), &counts{said: make(map[string]*count)}})
}

type quiet struct {
	slog.Handler
	counts *counts
}

// counts has an entry for each message of the program's text, so it is small.
type counts struct {
	mu   sync.Mutex
	said map[string]*count
}

type count struct {
	left    int // that may still be said at once
	at      time.Time
	leftOut int
}

// Handle writes a record, or counts it.
func (q *quiet) Handle(ctx context.Context, r slog.Record) error {
	leftOut, ok := q.counts.may(r.Message, r.Time)
	if !ok {
		return nil
	}
	if leftOut > 0 {
		r.AddAttrs(slog.Int("left out", leftOut))
	}
	return q.Handler.Handle(ctx, r)
}

func (c *counts) may(message string, now time.Time) (leftOut int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.said[message]
	if m == nil {
		m = &count{left: Burst, at: now}
		c.said[message] = m
	}
	for m.left < Burst && now.Sub(m.at) >= Every {
		m.left, m.at = m.left+1, m.at.Add(Every)
	}
	if m.left == 0 {
		m.leftOut++
		return 0, false
	}
	if m.left == Burst {
		m.at = now
	}
	m.left--
	leftOut, m.leftOut = m.leftOut, 0
	return leftOut, true
}

// WithAttrs is that of the handler beneath.
func (q *quiet) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &quiet{q.Handler.WithAttrs(attrs), q.counts}
}

// WithGroup is that of the handler beneath.
func (q *quiet) WithGroup(name string) slog.Handler {
	return &quiet{q.Handler.WithGroup(name), q.counts}
}
