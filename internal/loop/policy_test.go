// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"log/slog"
	"testing"
	"time"

	"github.com/twinbd/twinbd/internal/block"
)

// TestWritebackFollowsFlush: how much may be dirty before write-back begins is
// what the disk flushes in flushSpan, and never less than the option says.
func TestWritebackFollowsFlush(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		name    string
		flushed int64         // bytes that one flush covered
		took    time.Duration // it
		want    int64         // MiB after which write-back begins
	}{
		{"nothing is known", 0, 0, 64},
		{"256 MiB in 100 ms", 256 * mib, 100 * time.Millisecond, 1280},
		{"256 MiB in a second", 256 * mib, time.Second, 128},
		{"256 MiB in ten", 256 * mib, 10 * time.Second, 64},
		{"too little to judge by", 63 * mib, time.Millisecond, 64},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPolicy(&DiskOptions{Writeback: 64 * mib}, slog.New(slog.DiscardHandler))
			if c.flushed > 0 {
				p.wrote(&block.Task{Op: block.Write, Length: c.flushed})
				p.flushed(&block.Task{Op: block.Flush}, p.written, c.took)
			}
			p.wrote(&block.Task{Op: block.Write, Length: c.want*mib - 1})
			if x, due := p.writebackDue(); due {
				t.Errorf("write-back of %d bytes before %d MiB are dirty", x.length(), c.want)
			}
			p.wrote(&block.Task{Op: block.Write, Length: 1})
			if _, due := p.writebackDue(); !due {
				t.Errorf("no write-back though %d MiB are dirty", c.want)
			}
		})
	}
}

// TestFlushTakesDirty: what a flush has made durable needs no write-back, what
// was written while it ran does; a flush that failed has done nothing.
func TestFlushTakesDirty(t *testing.T) {
	p := newPolicy(&DiskOptions{Writeback: 100}, slog.New(slog.DiscardHandler))
	write := func(n int64) { p.wrote(&block.Task{Op: block.Write, Length: n}) }
	due := func() bool { _, due := p.writebackDue(); return due }
	write(60)
	mark := p.written
	write(30)
	p.flushed(&block.Task{Op: block.Flush}, mark, time.Second)
	if write(69); due() {
		t.Error("what was flushed still counts")
	}
	p.flushed(&block.Task{Op: block.Flush, Err: block.Invalid}, p.written, time.Second)
	if write(1); !due() {
		t.Error("what was written during the flush, or before one that failed, does not count")
	}
}

// TestSlowIsMeasuredInHandOvers: where a hand-over is dear, as on a busy machine, a
// write that takes as long as some is not slow; what a slow disk adds to one changes
// little.
func TestSlowIsMeasuredInHandOvers(t *testing.T) {
	for _, c := range []struct {
		name   string
		passed []time.Duration
		want   time.Duration // after which a write is slow
	}{
		{"nothing is known", nil, time.Millisecond},
		{"free processors", []time.Duration{15 * time.Microsecond}, time.Millisecond},
		{"busy processors", []time.Duration{2 * time.Millisecond}, 16 * time.Millisecond},
		{"the quickest counts", []time.Duration{time.Hour, time.Millisecond}, 8 * time.Millisecond},
		{"it grows slowly", []time.Duration{time.Millisecond, 3 * time.Millisecond}, 9 * time.Millisecond},
		{"and not for ever", []time.Duration{time.Minute, time.Hour}, 32 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPolicy(&DiskOptions{SlowAfter: time.Millisecond}, slog.New(slog.DiscardHandler))
			for _, took := range c.passed {
				p.passed(took)
			}
			if p.judgeInline(c.want); p.slow {
				t.Errorf("a write that took %v is slow", c.want)
			}
			if p.judgeInline(c.want + 1); !p.slow {
				t.Errorf("a write that took more than %v is not slow", c.want)
			}
		})
	}
}
