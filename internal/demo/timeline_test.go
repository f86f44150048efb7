// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twinbd/twinbd/control"
)

func TestTimeline(t *testing.T) {
	began := time.Unix(1_000_000, 0)
	at := func(ms int) time.Time { return began.Add(time.Duration(ms) * time.Millisecond) }
	for _, test := range []struct {
		name string
		line timeline
		want []string
		err  string
	}{
		{name: "adds up", line: timeline{{"the kill", at(0)}, {"the grant", at(1035)}, {"the write", at(1237)}},
			want: []string{"1035.00 ms  from the kill to the grant", "202.00 ms  from the grant to the write", "1237.00 ms  in all"}},
		{name: "no time at all", line: timeline{{"the kill", at(7)}, {"the grant", at(7)}},
			want: []string{"0.00 ms  from the kill to the grant", "0.00 ms  in all"}},
		{name: "out of order", line: timeline{{"the kill", at(0)}, {"the grant", at(9)}, {"the write", at(8)}},
			err: "the write came 1ms before the grant"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out strings.Builder
			err := (&story{out: &out}).parts(test.line)
			if test.err != "" {
				if err == nil || err.Error() != test.err {
					t.Fatalf("parts says %v, want %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for line := range strings.Lines(out.String()) {
				got = append(got, strings.TrimSpace(line))
			}
			if strings.Join(got, "\n") != strings.Join(test.want, "\n") {
				t.Fatalf("parts prints\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
			}
		})
	}
}

// A node tells of many things, and of some more than once: what counts is the
// first of its kind after the moment from which the demo looks.
func TestWhen(t *testing.T) {
	events := control.NewEvents(10)
	began := time.Unix(1_000_000, 0)
	for i, e := range []control.Event{
		{Kind: "role", New: "primary"}, {Kind: "ask"}, // of an earlier takeover
		{Kind: "state", New: "WAIT"}, {Kind: "role", New: "secondary"}, {Kind: "role", New: "primary"}, {Kind: "role", New: "primary"},
	} {
		e.Time = began.Add(time.Duration(i) * time.Second)
		events.Add(e)
	}
	n := &member{name: "alpha", client: serveEvents(t, events)}
	if last, err := n.lastEvent(t.Context()); err != nil || last != 6 {
		t.Errorf("last event is %d (%v), want 6", last, err)
	}
	at, err := n.when(t.Context(), 2, wantedEvent{what: "volume primary", kind: "role", to: "primary"})
	if want := began.Add(4 * time.Second); err != nil || !at.Equal(want) {
		t.Errorf("volume primary at %v (%v), want %v", at, err, want)
	}
	if at, err = n.when(t.Context(), 2, wantedEvent{what: "takeover asked for", kind: "ask"}); err == nil {
		t.Errorf("an event of before counts: %v", at)
	}
}

// serveEvents serves a node's events until the test ends.
func serveEvents(t *testing.T, events *control.Events) *control.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := control.Listen(path, control.DefaultMode)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- control.Serve(ctx, l, nobody{}, events, slog.New(slog.DiscardHandler)) }()
	client := control.NewClient(path)
	t.Cleanup(func() {
		client.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return client
}

// nobody is a node that has nothing but events.
type nobody struct{ control.Backend }
