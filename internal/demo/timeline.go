// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"fmt"
	"time"

	"github.com/twinbd/twinbd/control"
)

// timeline is what happened one after the other, on one machine's clock.
type timeline []moment

type moment struct {
	what string
	at   time.Time
}

// parts prints a timeline: each part with its length, which add up to the whole.
// What came before what it follows from is an error.
func (s *story) parts(line timeline) error {
	for i := 1; i < len(line); i++ {
		from, to := line[i-1], line[i]
		took := since(from, to)
		if took < 0 {
			return fmt.Errorf("%s came %v before %s", to.what, -took, from.what)
		}
		s.say("  %10s  from %s to %s", millisecondsText(took), from.what, to.what)
	}
	s.say("  %10s  in all", millisecondsText(since(line[0], line[len(line)-1])))
	return nil
}

// since leaves the monotonic clock out: the moments come from several processes.
func since(from, to moment) time.Duration { return to.at.Round(0).Sub(from.at.Round(0)) }

// wantedEvent is one that a node is to have told of.
type wantedEvent struct {
	what     string // for people
	kind, to string // Event.Kind, and Event.New when that matters
}

// lastEvent is the sequence number of the newest event that the node has told.
func (n *member) lastEvent(ctx context.Context) (last uint64, err error) {
	err = n.client.Events(ctx, 0, false, func(e control.Event) error {
		last = e.Sequence
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("events of %s: %w", n.name, err)
	}
	return last, nil
}

// when is the time of the first such event after a sequence number.
func (n *member) when(ctx context.Context, after uint64, w wantedEvent) (at time.Time, err error) {
	err = n.client.Events(ctx, after, false, func(e control.Event) error {
		if at.IsZero() && e.Kind == w.kind && (w.to == "" || e.New == w.to) {
			at = e.Time
		}
		return nil
	})
	switch {
	case err != nil:
		return at, fmt.Errorf("events of %s: %w", n.name, err)
	case at.IsZero():
		return at, fmt.Errorf("the events of %s do not tell of this: %s", n.name, w.what)
	}
	return at, nil
}
