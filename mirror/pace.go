// SPDX-License-Identifier: Apache-2.0

package mirror

import "time"

// pace measures what a connection takes while more is ready for it than it
// takes, because only then does the measure say something about the connection.
// It has no clock but the engine's, and no opinion before a window is over.
type pace struct {
	open   bool          // a window is
	since  time.Duration // when it began
	mark   int64         // bytes taken by then
	behind time.Duration // when the connection was last seen so
	isSlow bool
}

const (
	// packBelow is the pace in bytes per second under which compressing helps.
	// One core compresses about 350 MB/s of programs (BenchmarkPack), and has
	// more to do: so a link of 1 Gbit/s is slow, one of 2.5 is not.
	packBelow = 250e6

	// paceWindow is how long one measure takes, and paceMemory how long it holds
	// when the connection is not seen behind, as between two bursts of runs.
	paceWindow = 25 * time.Millisecond
	paceMemory = 250 * time.Millisecond
)

// slow takes what is seen at now: whether the connection is behind, and how
// many bytes it has ever taken.
func (p *pace) slow(now time.Duration, behind bool, taken int64) bool {
	switch {
	case !behind:
		p.open = false
		p.isSlow = p.isSlow && now-p.behind < paceMemory
		return p.isSlow
	case !p.open:
		p.since, p.mark, p.open = now, taken, true
	case now-p.since >= paceWindow:
		p.isSlow = float64(taken-p.mark) < packBelow*(now-p.since).Seconds()
		p.since, p.mark = now, taken
	}
	p.behind = now
	return p.isSlow
}
