// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twinbd/twinbd/internal/block"
)

// A write of parts of blocks is done inline when these are in the page cache:
// else the disk would be read from within the turn.
func TestPartialBlocks(t *testing.T) {
	for _, c := range []struct {
		offset, length int64
		tries          []string
	}{
		{4096, 8192, nil},
		{4096, 100, []string{"try 4096+4096"}},
		{4196, 100, []string{"try 4096+4096"}},
		{4196, 8092, []string{"try 4096+4096"}},
		{4196, 8192, []string{"try 4096+4096", "try 12288+4096"}},
		{4096, 8292, []string{"try 12288+4096"}},
	} {
		for _, cold := range []bool{false, true} {
			b := newBench(t, DiskOptions{SlowAfter: time.Minute})
			b.data.cold = cold
			inline := false
			on(t, b.l, func() {
				b.d.Do(write(c.offset, int(c.length)))
				inline = b.d.handed == 0
			})
			within(t, "task", b.back)
			if want := !cold || len(c.tries) == 0; inline != want {
				t.Errorf("%d bytes at %d, cold %v: inline %v", c.length, c.offset, cold, inline)
			}
			if !cold {
				b.expect("partial", b.data, append(slices.Clone(c.tries), fmt.Sprintf("write %d+%d", c.offset, c.length))...)
			}
		}
	}
}

// A task that was recalled touches its memory no more, whatever the disk does
// later; the bytes that a recalled write brings to the disk are its own; and
// what only waited for a worker is not begun.
func TestRecall(t *testing.T) {
	b := newBench(t, DiskOptions{Workers: 2, SlowAfter: time.Minute})
	b.data.cold = true
	entered, release := make(chan string, 10), make(chan struct{})
	b.data.before = func(op string) error {
		entered <- op
		<-release
		return nil
	}
	memory := bytes.Repeat([]byte{0xaa}, 3*pieceSize)
	read := &block.Task{Op: block.Read, Length: 4096, Data: memory[:4096]}
	change := &block.Task{Op: block.Write, Offset: 1 << 20, Length: 2 * pieceSize, Data: memory[pieceSize:]}
	queued := &block.Task{Op: block.Write, Offset: 4 << 20, Length: 2 * pieceSize, Data: memory[pieceSize:]}
	zeroes := &block.Task{Op: block.Trim, Offset: 7 << 20, Length: 1 << 20, Punch: true}
	tasks := []*block.Task{read, change, queued, zeroes}
	for _, task := range tasks[:2] {
		on(t, b.l, func() { b.d.Do(task) })
		within(t, "call", entered)
	}
	on(t, b.l, func() {
		b.d.DoAll(tasks[2:])
		for _, task := range tasks {
			b.d.Recall(task)
		}
		for i := range memory { // others use it now
			memory[i] = 0xbb
		}
	})
	close(release)
	for range tasks {
		within(t, "task", b.back)
	}
	if i := slices.IndexFunc(memory, func(x byte) bool { return x != 0xbb }); i >= 0 {
		t.Errorf("byte %d of recalled memory has changed to %#x", i, memory[i])
	}
	for _, task := range []*block.Task{read, queued, zeroes} {
		if !errors.Is(task.Err, errRecalled) {
			t.Errorf("%v: %v", task.Op, task.Err)
		}
	}
	if bytes.IndexByte(b.data.bytes, 0xbb) >= 0 {
		t.Error("bytes of another owner of the memory are on the disk")
	}
	if got := b.data.log(); slices.ContainsFunc(got, func(call string) bool { return call != "read 0+4096" && call != "write 1048576+1048576" }) {
		t.Errorf("the disk was asked %q", got)
	}
	if b.d.policy.written != 0 || b.d.policy.inARow != 0 {
		t.Error("something was learned from a recalled task")
	}
}

// A recalled question about holes leaves its room alone.
func TestRecallExtents(t *testing.T) {
	b := newBench(t, DiskOptions{Workers: 1})
	disk := mapped{b.data, make(chan struct{}), make(chan struct{})}
	on(t, b.l, func() { b.d.data = disk })
	room := make([]block.Extent, 0, 8)
	for _, recalled := range []bool{true, false} {
		clear(room[:1])
		task := &block.Task{Op: block.BlockStatus, Length: 4096, Extents: room}
		on(t, b.l, func() { b.d.Do(task) })
		within(t, "question", disk.asked)
		on(t, b.l, func() {
			if recalled {
				b.d.Recall(task)
			}
		})
		disk.answer <- struct{}{}
		within(t, "task", b.back)
		if got := room[:1][0].Length; recalled != (got == 0) {
			t.Errorf("recalled %v: room holds %d", recalled, got)
		}
		if !recalled && (task.Err != nil || len(task.Extents) != 1) {
			t.Errorf("answer %v, %v", task.Extents, task.Err)
		}
	}
}

// mapped is a disk without holes that says so when it is told to.
type mapped struct {
	*memory
	asked, answer chan struct{}
}

func (m mapped) NextData(offset int64) (start, end int64, err error) {
	m.asked <- struct{}{}
	<-m.answer
	return offset, m.Size(), nil
}

// A long queue before a disk that works is not a disk that hangs.
func TestStuckIsTheDisk(t *testing.T) {
	b := newBench(t, DiskOptions{Workers: 1})
	b.data.cold = true
	entered, pass := make(chan string), make(chan struct{})
	b.data.before = func(op string) error {
		entered <- op
		<-pass
		return nil
	}
	answered := time.Now()
	on(t, b.l, func() {
		for range 3 {
			b.d.Do(&block.Task{Op: block.Read, Length: 4096, Data: make([]byte, 4096)})
		}
	})
	for range 3 {
		within(t, "call", entered)
		for deadline := time.Now().Add(10 * time.Second); b.d.Stuck() < 20*time.Millisecond; {
			if time.Now().After(deadline) {
				t.Fatal("nothing seems stuck")
			}
		}
		if stuck, most := b.d.Stuck(), time.Since(answered); stuck > most {
			t.Errorf("stuck for %v, %v after the disk's last answer", stuck, most)
		}
		answered = time.Now()
		pass <- struct{}{}
		within(t, "task", b.back)
	}
}

// A disk that hangs within a turn shows to others.
func TestHungInline(t *testing.T) {
	b := newBench(t, DiskOptions{SlowAfter: time.Minute})
	entered, release := make(chan string), make(chan struct{})
	b.data.before = func(op string) error {
		entered <- op
		<-release
		return nil
	}
	b.l.Post(func() { b.d.Do(write(0, 4096)) })
	within(t, "call", entered)
	for deadline := time.Now().Add(10 * time.Second); b.l.Turning() < 20*time.Millisecond || b.d.Stuck() < 20*time.Millisecond; {
		if time.Now().After(deadline) {
			t.Fatalf("turning for %v, stuck for %v", b.l.Turning(), b.d.Stuck())
		}
	}
	close(release)
	within(t, "task", b.back)
	if s := b.d.Stuck(); s != 0 {
		t.Errorf("stuck for %v with nothing to do", s)
	}
}
