// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"testing"
	"time"

	"github.com/twinbd/twinbd/internal/block"
)

// TestPaceOfLink drives a link as a connection of some pace would, with so much
// ready that it limits, or so little that it does not.
func TestPaceOfLink(t *testing.T) {
	const step = 2 * time.Millisecond
	for _, c := range []struct {
		name   string
		second int64 // bytes that the connection takes in one
		queue  int   // runs that are made ready in one go, when none is left
		want   bool
	}{
		{"100 Mbit/s", 12e6, idleRuns, true},
		{"1 Gbit/s", 118e6, idleRuns, true},
		{"1 Gbit/s, one run at a time", 118e6, 1, false}, // waits for acknowledgements, not for the link
		{"2.5 Gbit/s", 295e6, idleRuns, false},
		{"10 Gbit/s", 1180e6, idleRuns, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLink(&Engine{}, true)
			run := make([]byte, maxCopyBlocks*block.Size)
			slow := false
			for now := step; now < 2*time.Second; now += step {
				if len(l.Output()) == 0 {
					for range c.queue {
						l.slow(now)
						l.push(&Frame{Type: frameCopy}, run)
					}
				}
				slow = l.slow(now)
				take(l, c.second*int64(step)/int64(time.Second))
			}
			if slow != c.want {
				t.Errorf("slow: %v, want %v", slow, c.want)
			}
		})
	}
}

// TestPaceIsForgotten: a link that was slow and is idle now was not known to be
// slow for ever.
func TestPaceIsForgotten(t *testing.T) {
	l := newLink(&Engine{}, true)
	run := make([]byte, maxCopyBlocks*block.Size)
	for range idleRuns {
		l.push(&Frame{Type: frameCopy}, run)
	}
	now := time.Second
	for ; !l.slow(now); now += time.Millisecond {
		if now > 2*time.Second {
			t.Fatal("a link that takes 10 MB/s is not slow")
		}
		take(l, 10<<10)
	}
	for len(l.Output()) > 0 {
		take(l, 1<<20)
	}
	if !l.slow(now + paceMemory/2) {
		t.Error("forgotten between two bursts")
	}
	if l.slow(now + 2*paceMemory) {
		t.Error("not forgotten")
	}
}

// take is a connection that takes at most n bytes of what l offers.
func take(l *Link, n int64) {
	total := int64(0)
	for _, b := range l.Output() {
		total += int64(len(b))
	}
	l.Sent(int(min(n, total)))
}
