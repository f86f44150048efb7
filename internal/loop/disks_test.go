// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twinbd/twinbd/internal/block"
)

// memory is a disk that notes what was done by whom, and can be told to wait,
// to fail and to miss its cache.
type memory struct {
	mu     sync.Mutex
	bytes  []byte
	calls  []string
	before func(op string) error // called outside the lock
	cold   bool                  // TryReadAt would block
}

func newMemory() *memory { return &memory{bytes: make([]byte, 8<<20)} }

func (m *memory) enter(op string, offset, length int64) error {
	var err error
	if m.before != nil {
		err = m.before(op)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls = append(m.calls, fmt.Sprintf("%s %d+%d", op, offset, length))
	return err
}

func (m *memory) log() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.calls)
}

func (m *memory) access(op string, offset, length int64, f func(b []byte)) error {
	if err := m.enter(op, offset, length); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	f(m.bytes[offset : offset+length])
	return nil
}

func (m *memory) Size() int64 { return int64(len(m.bytes)) }

func (m *memory) ReadAt(p []byte, o int64) error {
	return m.access("read", o, int64(len(p)), func(b []byte) { copy(p, b) })
}

func (m *memory) WriteAt(p []byte, o int64) error {
	return m.access("write", o, int64(len(p)), func(b []byte) { copy(b, p) })
}

func (m *memory) Zero(o, n int64, punch bool) error {
	return m.access(fmt.Sprintf("zero(%v)", punch), o, n, func(b []byte) { clear(b) })
}

func (m *memory) Sync() error  { return m.enter("sync", 0, 0) }
func (m *memory) Close() error { return nil }

func (m *memory) WriteVectorAt(buffers [][]byte, o int64) error {
	all := bytes.Join(buffers, nil)
	return m.access("vector", o, int64(len(all)), func(b []byte) { copy(b, all) })
}

func (m *memory) TryReadAt(p []byte, o int64) error {
	if m.cold {
		return block.ErrWouldBlock
	}
	return m.access("try", o, int64(len(p)), func(b []byte) { copy(p, b) })
}

func (m *memory) WillNeed(o, n int64)       { _ = m.enter("willneed", o, n) }
func (m *memory) Drop(o, n int64)           { _ = m.enter("drop", o, n) }
func (m *memory) StartWriteback(o, n int64) { _ = m.enter("writeback", o, n) }

// bench is a loop with disks, and what came back.
type bench struct {
	t    *testing.T
	l    *Loop
	d    *Disks
	data *memory
	meta *memory
	back chan *block.Task
	skip atomic.Int64 // by how much the clock of inline work is ahead
}

// slowly makes a call take an hour of the inline clock while slow is set.
func (b *bench) slowly(slow *atomic.Bool) func(string) error {
	return func(string) error {
		if slow.Load() {
			b.skip.Add(int64(time.Hour))
		}
		return nil
	}
}

func newBench(t *testing.T, o DiskOptions) *bench {
	b := &bench{t: t, data: newMemory(), meta: newMemory(), back: make(chan *block.Task, 10_000)}
	b.l = start(t, Options{}, &idleCore{})
	on(t, b.l, func() {
		b.d = NewDisks(b.l, b.data, b.meta, o, func(task *block.Task) { b.back <- task })
		clock := b.d.clock
		b.d.clock = func() time.Duration { return clock() + time.Duration(b.skip.Load()) }
	})
	t.Cleanup(func() {
		on(t, b.l, func() {
			if err := b.d.Close(); err != nil {
				t.Error(err)
			}
		})
	})
	return b
}

func (b *bench) do(tasks ...*block.Task) {
	b.t.Helper()
	on(b.t, b.l, func() {
		b.d.DoAll(tasks)
		if len(b.back) > 0 {
			b.t.Error("done was called from within Do")
		}
	})
	for range tasks {
		within(b.t, "task", b.back)
	}
}

func write(offset int64, n int) *block.Task {
	data := bytes.Repeat([]byte{byte(offset>>12) + 1}, n)
	return &block.Task{Op: block.Write, Offset: offset, Length: int64(n), Data: data, Err: errors.New("not done")}
}

func (b *bench) expect(what string, disk *memory, want ...string) {
	b.t.Helper()
	got := disk.log()
	disk.mu.Lock()
	disk.calls = nil
	disk.mu.Unlock()
	if !slices.Equal(got, want) {
		b.t.Errorf("%s: disk was asked %q, want %q", what, got, want)
	}
}

// Each operation in the form that it reaches the disk in.
func TestTasks(t *testing.T) {
	b := newBench(t, DiskOptions{SlowAfter: time.Minute})
	room := make([]byte, 4096)
	for _, c := range []struct {
		name string
		task block.Task
		want []string
	}{
		{"write", *write(4096, 100), []string{"try 4096+4096", "write 4096+100"}},
		{"read", block.Task{Op: block.Read, Offset: 4096, Length: 4096, Data: room}, []string{"try 4096+4096"}},
		{"bulk read", block.Task{Op: block.Read, Length: 4096, Data: room, Drop: true}, []string{"read 0+4096", "drop 0+4096"}},
		{"zeroes", block.Task{Op: block.WriteZeroes, Offset: 8192, Length: 4096}, []string{"zero(false) 8192+4096"}},
		{"trim", block.Task{Op: block.Trim, Length: 1 << 20, Punch: true}, []string{"zero(true) 0+1048576"}},
		{"cache", block.Task{Op: block.Cache, Length: 4096}, []string{"willneed 0+4096"}},
		{"flush", block.Task{Op: block.Flush}, []string{"sync 0+0"}},
	} {
		task := c.task
		b.do(&task)
		if task.Err != nil {
			t.Errorf("%s: %v", c.name, task.Err)
		}
		if c.name == "read" && (room[99] != 2 || room[100] != 0) {
			t.Error("the read gave other bytes than were written")
		}
		b.expect(c.name, b.data, c.want...)
	}
	bad := block.Task{Op: block.Op(99)}
	b.do(&bad)
	if !errors.Is(bad.Err, block.Invalid) {
		t.Errorf("unknown operation: %v", bad.Err)
	}
}

// Adjacent writes become one, others do not; all come back in order.
func TestMerge(t *testing.T) {
	b := newBench(t, DiskOptions{SlowAfter: time.Minute})
	tasks := []*block.Task{
		write(0, 4096), write(4096, 4096), write(8192, 8192), // one
		write(65536, 4096),                                   // alone
		write(1<<20, 700_416), write(1<<20+700_416, 700_416), // too much for one
		{Op: block.Read, Length: 16384, Data: make([]byte, 16384)},
	}
	on(t, b.l, func() { b.d.DoAll(tasks) })
	for i, want := range tasks {
		if got := within(t, "task", b.back); got != want || got.Err != nil {
			t.Fatalf("task %d: another came back, or error %v", i, got.Err)
		}
	}
	b.expect("merge", b.data, "vector 0+16384", "write 65536+4096", "write 1048576+700416", "write 1748992+700416", "try 0+16384")
	want := append(append(bytes.Clone(tasks[0].Data), tasks[1].Data...), tasks[2].Data...)
	if !bytes.Equal(tasks[6].Data, want) {
		t.Error("read other bytes than were written")
	}

	b.data.before = func(string) error { return block.NoSpace }
	tasks = tasks[:3]
	b.do(tasks...)
	for i, task := range tasks {
		if !errors.Is(task.Err, block.NoSpace) {
			t.Errorf("task %d of a failed merged write: %v", i, task.Err)
		}
	}
}

// A slow write sends the next ones to workers, until they were quick several
// times; so does much that is unsynced, until a flush.
func TestSlowDisk(t *testing.T) {
	b := newBench(t, DiskOptions{SlowAfter: time.Minute, UnsyncedLimit: 1 << 20})
	var slow atomic.Bool
	b.data.before = b.slowly(&slow)
	inline := func() bool {
		t.Helper()
		task, isInline := write(0, 4096), false
		on(t, b.l, func() {
			handed := b.d.handed
			b.d.Do(task)
			isInline = b.d.handed == handed
		})
		within(t, "task", b.back)
		return isInline
	}
	if !inline() {
		t.Error("a quick disk's write went to a worker")
	}
	slow.Store(true)
	inline()
	slow.Store(false)
	n := 0
	for ; !inline(); n++ {
		if n > 200 {
			t.Fatal("the disk stays slow for ever")
		}
	}
	if n != quickInARow {
		t.Errorf("%d writes by workers after a slow one, want %d", n, quickInARow)
	}

	b.do(write(0, 1<<20))
	if inline() {
		t.Error("a write was done inline with too much unsynced")
	}
	b.do(&block.Task{Op: block.Flush})
	if !inline() {
		t.Error("a write went to a worker though all is synced")
	}
	b.data.before = func(string) error { return block.IOError }
	b.do(write(0, 1<<20))
	if !inline() {
		t.Error("bytes that no disk took count as unsynced")
	}
}

// Reads that miss the cache, large and bulk ones go to workers; metadata goes
// in order, past a data disk that hangs.
func TestWhoMayWait(t *testing.T) {
	b := newBench(t, DiskOptions{Workers: 2})
	b.data.cold = true
	release := make(chan struct{})
	b.data.before = func(string) error { <-release; return nil }
	hanging := []*block.Task{
		{Op: block.Read, Length: 4096, Data: make([]byte, 4096)},
		{Op: block.Flush},
		{Op: block.Write, Length: 4 << 20, Data: make([]byte, 4<<20)},
		{Op: block.Write, Offset: 4 << 20, Length: 4096, Data: make([]byte, 4096), Drop: true},
		{Op: block.WriteZeroes, Offset: 5 << 20, Length: 1 << 20},
	}
	on(t, b.l, func() { b.d.DoAll(hanging) })

	var meta []*block.Task
	for i := range 20 {
		w := write(int64(i)*4096, 4096)
		w.Target = block.Metadata
		meta = append(meta, w, &block.Task{Op: block.Flush, Target: block.Metadata})
	}
	on(t, b.l, func() { b.d.DoAll(meta) })
	for i, want := range meta {
		if got := within(t, "metadata task", b.back); got != want {
			t.Fatalf("metadata task %d came back out of order", i)
		}
	}
	for i, call := range b.meta.log() {
		want := fmt.Sprintf("write %d+4096", i/2*4096)
		if i%2 == 1 {
			want = "sync 0+0"
		}
		if call != want {
			t.Fatalf("metadata call %d: %s, want %s", i, call, want)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); b.d.Stuck() < 20*time.Millisecond; {
		if time.Now().After(deadline) {
			t.Fatal("nothing seems stuck")
		}
	}
	close(release)
	for range hanging {
		if task := within(t, "task", b.back); task.Err != nil {
			t.Error(task.Err)
		}
	}
	if s := b.d.Stuck(); s != 0 {
		t.Errorf("stuck for %v with nothing to do", s)
	}
}

// Bulk writes are written back at once and forgotten after the next flush;
// the rest is written back early.
func TestAdvice(t *testing.T) {
	b := newBench(t, DiskOptions{Workers: 1, SlowAfter: time.Minute, Writeback: 1 << 20})
	bulk := func(offset int64) *block.Task {
		w := write(offset, 65536)
		w.Drop = true
		return w
	}
	b.do(bulk(0))
	b.do(bulk(65536))
	b.do(bulk(1 << 20))
	b.do(&block.Task{Op: block.Flush})
	b.do(&block.Task{Op: block.Flush})
	b.expect("bulk", b.data, "write 0+65536", "writeback 0+65536", "write 65536+65536", "writeback 65536+65536",
		"write 1048576+65536", "writeback 1048576+65536", "sync 0+0", "drop 0+131072", "drop 1048576+65536", "sync 0+0")

	b.data.before = func(op string) error {
		if op == "sync" {
			return block.IOError
		}
		return nil
	}
	b.do(bulk(0))
	b.do(&block.Task{Op: block.Flush})
	b.expect("failed flush", b.data, "write 0+65536", "writeback 0+65536", "sync 0+0")

	b.data.before = nil
	b.do(write(2<<20, 983_040))
	for deadline := time.Now().Add(10 * time.Second); len(b.data.log()) < 2; {
		if time.Now().After(deadline) {
			t.Fatal("no early write-back")
		}
	}
	b.expect("early", b.data, "write 2097152+983040", "writeback 0+3080192")
}

// Inline flushes only when asked for, nothing else is under way, and the last
// was quick.
func TestInlineSync(t *testing.T) {
	for _, inline := range []bool{false, true} {
		b := newBench(t, DiskOptions{InlineSync: inline, SlowAfter: time.Minute})
		var slow atomic.Bool
		b.data.before = b.slowly(&slow)
		flush := func(with ...*block.Task) (isInline bool) {
			on(t, b.l, func() {
				handed := b.d.handed
				b.d.DoAll(append(with, &block.Task{Op: block.Flush}))
				isInline = b.d.handed == handed
			})
			for range len(with) + 1 {
				within(t, "task", b.back)
			}
			return isInline
		}
		if got := flush(); got != inline {
			t.Errorf("InlineSync %v: alone inline %v", inline, got)
		}
		if flush(write(0, 4096)) {
			t.Error("a flush among others was done inline")
		}
		slow.Store(true)
		flush()
		slow.Store(false)
		if flush() {
			t.Error("a flush was done inline after a slow one, or without being asked for")
		}
		if got := flush(); got != inline {
			t.Errorf("InlineSync %v: inline %v after a quick one", inline, got)
		}
		for range 3 {
			b.do(write(0, inlineMove/2))
		}
		if flush() {
			t.Error("a flush of much that had piled up was done inline")
		}
	}
}

// done may ask for more, which does not recurse and does not keep sockets from
// their turn.
func TestDoneMayDo(t *testing.T) {
	core := &idleCore{}
	l := start(t, Options{}, core)
	const tasks = 10 * returnBatch
	var d *Disks
	n, depth, first := 0, 0, 0
	finished := make(chan int, 1)
	task := write(0, 512)
	on(t, l, func() {
		first = core.turns
		d = NewDisks(l, newMemory(), nil, DiskOptions{SlowAfter: time.Minute}, func(x *block.Task) {
			if depth++; depth > 1 {
				t.Error("done recurses")
			}
			if n++; n < tasks {
				d.Do(x)
			} else {
				finished <- core.turns - first
			}
			depth--
		})
		d.Do(task)
	})
	if turns := within(t, "end", finished); turns < 4 {
		t.Errorf("%d tasks in %d turns: nobody else had one", tasks, turns)
	}
	on(t, l, func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Close hands back what workers still finish, refuses what comes later, and
// names the task of a disk that hangs.
func TestDisksClose(t *testing.T) {
	t.Run("in order", func(t *testing.T) {
		var l *Loop
		var d *Disks
		n := 0
		l = New(Options{})
		disk := newMemory()
		disk.cold = true
		d = NewDisks(l, disk, nil, DiskOptions{}, func(*block.Task) { n++ })
		ended := make(chan error, 1)
		ctx, cancel := context.WithCancel(context.Background())
		go func() { ended <- l.Run(ctx, &idleCore{}) }()
		on(t, l, func() {
			for range 100 {
				d.Do(&block.Task{Op: block.Read, Length: 512, Data: make([]byte, 512)})
			}
			cancel()
		})
		if err := within(t, "end of Run", ended); err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil || n != 100 {
			t.Errorf("%d of 100 tasks came back, %v", n, err)
		}
		late := write(0, 512)
		d.Do(late)
		if !errors.Is(late.Err, os.ErrClosed) {
			t.Errorf("after Close: %v", late.Err)
		}
	})
	t.Run("hanging", func(t *testing.T) {
		l := New(Options{Name: "mail"})
		disk, release := newMemory(), make(chan struct{})
		disk.before = func(string) error { <-release; return nil }
		d := NewDisks(l, disk, disk, DiskOptions{HangAfter: 20 * time.Millisecond}, func(*block.Task) {})
		task := write(8192, 512)
		task.Target = block.Metadata
		d.Do(task)
		err := d.Close()
		if err == nil || !strings.Contains(err.Error(), "mail: write of 512 bytes at 8192 has had no answer for") {
			t.Errorf("got %v", err)
		}
		close(release)
	})
}

func TestNoMetadataDisk(t *testing.T) {
	l := New(Options{})
	d := NewDisks(l, newMemory(), nil, DiskOptions{}, func(*block.Task) {})
	task := &block.Task{Op: block.Flush, Target: block.Metadata}
	d.Do(task)
	if task.Err == nil {
		t.Error("no error")
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// Random tasks that do not overlap leave what a plain copy of them would, on
// whichever path each of them went.
func TestRandomTasks(t *testing.T) {
	seed := time.Now().UnixNano()
	source := mrand.NewChaCha8([32]byte(fmt.Appendf(nil, "%032d", seed)))
	rng := mrand.New(source)
	b := newBench(t, DiskOptions{UnsyncedLimit: 256 << 10, Writeback: 64 << 10})
	b.data.cold = true
	model := make([]byte, b.data.Size())
	for range 60 {
		var tasks []*block.Task
		var offset int64
		for offset < 7<<20 && len(tasks) < 100 {
			offset += int64(rng.IntN(3)) * 4096
			n := int64(1 + rng.IntN(100_000))
			task := &block.Task{Offset: offset, Length: n, Drop: rng.IntN(8) == 0}
			switch rng.IntN(5) {
			case 0:
				task.Op = block.WriteZeroes
				clear(model[offset : offset+n])
			case 1:
				task.Op, task.Data = block.Read, make([]byte, n)
			default:
				task.Op, task.Data = block.Write, make([]byte, n)
				_, _ = source.Read(task.Data)
				copy(model[offset:], task.Data)
			}
			tasks = append(tasks, task)
			offset += n
		}
		b.do(tasks...)
		for _, task := range tasks {
			if task.Err != nil {
				t.Fatalf("seed %d: %v", seed, task.Err)
			}
			if task.Op == block.Read && !bytes.Equal(task.Data, model[task.Offset:task.Offset+task.Length]) {
				t.Fatalf("seed %d: a read gave other bytes", seed)
			}
		}
		if rng.IntN(4) == 0 {
			b.do(&block.Task{Op: block.Flush})
		}
	}
	if !bytes.Equal(b.data.bytes, model) {
		t.Fatalf("seed %d: the disk differs from the model", seed)
	}
}
