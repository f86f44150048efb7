// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/twinbd/twinbd/internal/block"
)

// A session that is told to drain in the middle of a stream stops at the boundary of
// a request, with everything answered that it has read; a successor that reads on
// does the rest. Together they do what one does, wherever the stream is cut.
func TestDrain(t *testing.T) {
	payload := bytes.Repeat([]byte{7}, 300)
	requests := [][]byte{
		req(block.Write, 0, 1, 0, 300, payload...),
		req(block.Read, 0, 2, 0, 16),
		req(block.Write, 0, 3, 1<<40, 100, payload[:100]...), // beyond the end: read off and refused
		req(block.Flush, 0, 4, 0, 0),
		req(block.Write, block.FUA, 5, 512, 2, 8, 9),
	}
	stream := slices.Concat(requests...)
	boundaries := map[int]int{0: 0} // bytes before, requests
	for i, at := 0, 0; i < len(requests); i++ {
		at += len(requests[i])
		boundaries[at] = i + 1
	}
	for cut := range len(stream) + 1 {
		first := newRig(t, Negotiated{}, Options{})
		if rest, err := first.feed(stream[:cut]); err != nil || len(rest) > 0 {
			t.Fatalf("cut at %d: %d bytes are not taken, %v", cut, len(rest), err)
		}
		over := 0
		first.s.Drain(func() { over++ })
		rest, err := first.feed(stream[cut:])
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		done, ok := boundaries[len(stream)-len(rest)]
		if !ok {
			t.Fatalf("cut at %d: stopped at %d, in the middle of a request", cut, len(stream)-len(rest))
		}
		first.turn()
		if answers := len(first.s.Output()) > 0; answers == (over == 1) {
			t.Fatalf("cut at %d: %d times drained, answers to be sent: %t", cut, over, answers)
		}
		first.take(-1)
		if over != 1 || first.s.Room() != nil {
			t.Fatalf("cut at %d: %d times drained, room for %d bytes", cut, over, len(first.s.Room()))
		}
		second := newRig(t, Negotiated{}, Options{})
		second.disk = first.disk
		answers, err := second.exchange(rest)
		if err != nil {
			t.Fatal(err)
		}
		got, want := sortedLines(show(append(first.sent, answers...), map[uint64]int{2: 16})), drainedAtOnce(t, stream)
		if got != want {
			t.Fatalf("cut at %d, after %d requests:\n%swant\n%s", cut, done, got, want)
		}
	}
}

func drainedAtOnce(t *testing.T, stream []byte) string {
	sent, err := newRig(t, Negotiated{}, Options{}).exchange(stream)
	if err != nil {
		t.Fatal(err)
	}
	return sortedLines(show(sent, map[uint64]int{2: 16}))
}

// sortedLines leaves out in which order the answers came.
func sortedLines(text string) string {
	lines := strings.Split(text, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// What is with the engine is waited for, a client that goes is not, and a session
// that resumes reads on.
func TestDrainWaitsForTheEngine(t *testing.T) {
	g := newRig(t, Negotiated{}, Options{})
	g.hold = true
	over := 0
	if _, err := g.feed(req(block.Flush, 0, 1, 0, 0)); err != nil {
		t.Fatal(err)
	}
	g.turn()
	g.s.Drain(func() { over++ })
	if over != 0 || g.s.Room() != nil {
		t.Fatalf("drained %d times with a request under way, room for %d bytes", over, len(g.s.Room()))
	}
	g.do(g.held[0])
	if over != 0 {
		t.Fatal("drained before the answer was sent")
	}
	g.take(-1)
	if over != 1 {
		t.Fatalf("drained %d times", over)
	}
	g.s.Resume()
	g.hold, g.sent = false, nil
	if answer, err := g.exchange(req(block.Flush, 0, 2, 0, 0)); err != nil || len(answer) != simpleHeader || over != 1 {
		t.Fatalf("after it resumed: %d bytes, %v, drained %d times", len(answer), err, over)
	}
	g.s.Drain(func() { over++ })
	g.s.Closed(nil)
	if over != 2 {
		t.Errorf("drained %d times", over)
	}

	g = newRig(t, Negotiated{}, Options{})
	if _, err := g.feed(req(block.Write, 0, 1, 0, 8, 1)); err != nil {
		t.Fatal(err)
	}
	g.s.Drain(func() { over++ })
	if g.s.Closed(nil); over != 3 {
		t.Errorf("drained %d times", over)
	}
}
