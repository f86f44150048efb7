// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"sync"
	"time"
)

// Event is one change of something that a status shows.
type Event struct {
	Sequence uint64    `json:"sequence"` // from 1, without gaps
	Time     time.Time `json:"time"`
	Service  string    `json:"service,omitempty"`
	Volume   string    `json:"volume,omitempty"`
	Kind     string    `json:"kind"` // what changed: state, peer, disk, resync, …
	Old      string    `json:"old,omitempty"`
	New      string    `json:"new,omitempty"`
	Reason   string    `json:"reason,omitempty"` // one sentence
	Who      string    `json:"who,omitempty"`    // who asked for it; empty: the node itself
}

// Events keeps the last events of a node, in memory. All its methods may be
// called from anywhere.
type Events struct {
	mu      sync.Mutex
	ring    []Event       // the event of sequence n is at (n-1) % len
	last    uint64        // sequence of the newest event; 0: none
	changed chan struct{} // closed when last changes
}

// NewEvents keeps as many events as capacity says, at least one.
func NewEvents(capacity int) *Events {
	return &Events{ring: make([]Event, max(capacity, 1)), changed: make(chan struct{})}
}

// Add records an event under the next sequence number. A zero Time becomes now.
func (e *Events) Add(event Event) {
	if event.Time.IsZero() {
		event.Time = time.Now()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	event.Sequence = e.last + 1
	e.ring[e.last%uint64(len(e.ring))] = event
	e.last++
	close(e.changed)
	e.changed = make(chan struct{})
}

// Since returns the kept events after a sequence number, the oldest first. A
// first one that is not the next number says that events were lost.
func (e *Events) Since(after uint64) []Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.sinceLocked(after)
}

// Next is Since, but waits until there is at least one.
func (e *Events) Next(ctx context.Context, after uint64) ([]Event, error) {
	for {
		e.mu.Lock()
		events, changed := e.sinceLocked(after), e.changed
		e.mu.Unlock()
		if len(events) > 0 {
			return events, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (e *Events) sinceLocked(after uint64) []Event {
	size := uint64(len(e.ring))
	if e.last > size {
		after = max(after, e.last-size)
	}
	if after >= e.last {
		return nil
	}
	events := make([]Event, 0, e.last-after)
	for n := after; n < e.last; n++ {
		events = append(events, e.ring[n%size])
	}
	return events
}
