// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/twinbd/twinbd/control"
)

const (
	barWidth    = 30               // columns
	barInterval = time.Second / 10 // between two drawings of a bar
	logInterval = 10 * time.Second // between two lines where there is no terminal
)

// progress shows how far something long has come: one line that is redrawn on a
// terminal, lines elsewhere. Its methods must not overlap.
type progress struct {
	out      io.Writer
	terminal bool
	now      func() time.Time

	current control.Progress
	begun   time.Time // of the current step
	offset  int64     // what was done when it was first seen
	shown   time.Time // when it was last shown; zero: not yet
	open    bool      // the cursor stands behind a bar
}

// newProgress shows progress on stderr.
func newProgress(w io.Writer) *progress {
	file, ok := w.(*os.File)
	return &progress{out: w, terminal: ok && isTerminal(file), now: time.Now}
}

// update takes the next report of a step. A new text is a new step.
func (p *progress) update(report control.Progress) {
	now := p.now()
	if p.begun.IsZero() || report.Text != p.current.Text {
		p.end()
		p.begun, p.offset, p.shown = now, report.Done, time.Time{}
	}
	p.current = report
	interval := logInterval
	if p.terminal {
		interval = barInterval
	}
	finished := report.Total > 0 && report.Done >= report.Total
	if finished || p.shown.IsZero() || now.Sub(p.shown) >= interval {
		p.show(now)
	}
}

// end leaves the last line standing; what is printed next starts a new one.
func (p *progress) end() {
	if p.open {
		fmt.Fprintln(p.out)
		p.open = false
	}
}

func (p *progress) show(now time.Time) {
	p.shown = now
	line := describe(p.current, p.offset, now.Sub(p.begun))
	switch {
	case !p.terminal:
		fmt.Fprintln(p.out, line)
	case p.current.Total > 0:
		fmt.Fprintf(p.out, "\r%s %s\x1b[K", bar(p.current), line)
		p.open = true
	default:
		fmt.Fprintf(p.out, "\r%s\x1b[K", line)
		p.open = true
	}
}

// describe says in words how far a step has come that began with offset done.
func describe(p control.Progress, offset int64, elapsed time.Duration) string {
	if p.Total <= 0 {
		return p.Text
	}
	line := fmt.Sprintf("%s: %d%%, %s of %s", p.Text, percent(p.Done, p.Total), humanBytes(p.Done), humanBytes(p.Total))
	moved := p.Done - offset
	if elapsed < time.Second/2 || moved <= 0 {
		return line // too early to say how fast
	}
	rate := float64(moved) / elapsed.Seconds()
	line += fmt.Sprintf(", %s/s", humanBytes(int64(rate)))
	if p.Done >= p.Total {
		return line + fmt.Sprintf(", took %s", humanDuration(elapsed))
	}
	left := time.Duration(float64(p.Total-p.Done) / rate * float64(time.Second))
	return line + fmt.Sprintf(", %s left", humanDuration(left))
}

func bar(p control.Progress) string {
	filled := percent(p.Done, p.Total) * barWidth / 100
	return "[" + strings.Repeat("#", filled) + strings.Repeat(".", barWidth-filled) + "]"
}

// percent is rounded down, so that 100 means all.
func percent(done, total int64) int {
	if total <= 0 {
		return 100
	}
	return int(float64(min(max(done, 0), total)) / float64(total) * 100)
}
