// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// Events against a plain list of everything.
func TestEventsSince(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		capacity := rapid.IntRange(0, 5).Draw(t, "capacity")
		count := rapid.Uint64Range(0, 12).Draw(t, "count")
		after := rapid.Uint64Range(0, 14).Draw(t, "after")
		events := NewEvents(capacity)
		var want []uint64
		for n := uint64(1); n <= count; n++ {
			events.Add(Event{Kind: "state"})
			if n > after && n+uint64(max(capacity, 1)) > count {
				want = append(want, n)
			}
		}
		got := events.Since(after)
		if len(got) != len(want) {
			t.Fatalf("%d events, want %v", len(got), want)
		}
		for i, e := range got {
			if e.Sequence != want[i] || e.Kind != "state" || e.Time.IsZero() {
				t.Fatalf("event %d is %+v, want sequence %d", i, e, want[i])
			}
		}
	})
}

func TestEventsNextWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := NewEvents(4)
		got := make(chan []Event, 2)
		for range 2 {
			go func() {
				e, err := events.Next(t.Context(), 0)
				if err != nil {
					t.Error(err)
				}
				got <- e
			}()
		}
		synctest.Wait()
		if len(got) != 0 {
			t.Fatal("Next returned before there was an event")
		}
		events.Add(Event{Kind: "peer", Time: time.Unix(1, 0)})
		for range 2 {
			if e := <-got; len(e) != 1 || e[0].Kind != "peer" || e[0].Time != time.Unix(1, 0) {
				t.Errorf("got %+v", e)
			}
		}

		cause := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		go cancel(cause)
		if _, err := events.Next(ctx, 1); err != cause {
			t.Errorf("got %v, want %v", err, cause)
		}
	})
}
