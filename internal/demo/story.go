// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// story prints what happens: plain text, the same on a terminal and in a log.
type story struct {
	out   io.Writer
	began time.Time
	step  int
}

// chapter begins a step.
func (s *story) chapter(title string) {
	s.step++
	fmt.Fprintf(s.out, "\n%d. %s\n", s.step, title)
}

// say prints one line.
func (s *story) say(format string, args ...any) {
	fmt.Fprintln(s.out, strings.TrimRight("   "+fmt.Sprintf(format, args...), " "))
}

// quote prints a text with a mark before each line, as what somebody else said.
func (s *story) quote(text string) {
	for line := range strings.Lines(text) {
		s.say("| %s", strings.TrimRight(line, "\n"))
	}
}

// bytesText writes about so many bytes: 8.2 MiB.
func bytesText(n int64) string {
	const units = "KMGT"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1024, 0
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", value, units[unit])
}

// timeText writes a time with three digits or so: 0.42 ms, 42 ms, 4.20 s.
func timeText(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	switch {
	case ms < 10:
		return fmt.Sprintf("%.2f ms", ms)
	case ms < 1000:
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

// millisecondsText writes a time in milliseconds, however long, so that a column
// of them can be added up.
func millisecondsText(d time.Duration) string {
	return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
}

// shareText writes how much of a whole something is.
func shareText(part, whole int64) string {
	return fmt.Sprintf("%.1f %%", 100*float64(part)/float64(whole))
}
