// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultSpin is how long a loop polls after the last activity before it
// sleeps. A wake-up that crosses processors costs 10 to 15 µs and there are
// four of them in a replicated write, so a short spin is worth a factor of
// three at queue depth one; a longer one burns what the client needs.
const DefaultSpin = 50 * time.Microsecond

// maxSleep bounds one sleep. The system's poll counts its timeout on a clock
// that stands still while the machine is suspended; ours does not.
const maxSleep = time.Second

// ErrStopped is what streams are told whose connection was still open when
// the loop ended.
var ErrStopped = errors.New("loop stopped")

// Options says how a loop behaves. The zero value is usable.
type Options struct {
	Name string // of the volume, for messages

	// Spin is how long to poll after the last activity before sleeping: zero
	// is DefaultSpin, negative is never. On one processor there is no spin,
	// because nobody could end it.
	Spin time.Duration

	// Portable makes the loop use goroutines and the runtime's clock where it
	// would own a thread. It is the only kind outside Linux.
	Portable bool

	Logger *slog.Logger // nil discards
}

// Loop drives the connections, disks and core of one volume.
type Loop struct {
	name  string
	log   *slog.Logger
	spin  time.Duration
	clock func() time.Duration // since the loop was made; any goroutine
	wait  waiter

	// These belong to the loop's thread.
	ports   []*Port
	sources []source
	now     time.Duration
	active  bool // bytes or results moved in this turn: spin after it
	again   bool // something is left to do: no sleep before the next turn
	ending  bool // a port waits to be reaped

	posts   posts
	signal  atomic.Bool  // somebody has something for the loop
	asleep  atomic.Bool  // the loop sleeps, or is about to
	stopped atomic.Bool  // Run shall return
	since   atomic.Int64 // when the present turn began, 0 while waiting
	pumps   sync.WaitGroup
}

// source hands results back on the loop's thread, besides the ports.
type source interface {
	// deliver hands back what is finished, a bounded number at a time, and
	// returns how much that was; pending says that some is left.
	deliver() int
	pending() bool
}

// New returns a loop that does not run yet.
func New(o Options) *Loop {
	l := &Loop{name: o.Name, log: o.Logger, spin: o.Spin}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if l.spin == 0 {
		l.spin = DefaultSpin
	}
	if runtime.NumCPU() == 1 || l.spin < 0 {
		l.spin = 0
	}
	l.wait, l.clock = newWaiter(l, o.Portable)
	l.now = l.clock()
	return l
}

// Run drives core, and the streams that are added, on the calling goroutine,
// until ctx ends or Stop is called; then it runs what was posted, closes the
// connections that are left and returns nil. On Linux it keeps the OS thread
// for itself meanwhile. A Loop runs once.
func (l *Loop) Run(ctx context.Context, core Core) error {
	defer context.AfterFunc(ctx, l.Stop)()
	err := l.wait.open()
	for err == nil && !l.stopped.Load() {
		err = l.turn(core)
	}
	l.end()
	if err != nil {
		return fmt.Errorf("run loop %s: %w", l.name, err)
	}
	return nil
}

// Stop makes Run return soon. Any goroutine may call it, also before Run.
func (l *Loop) Stop() {
	l.stopped.Store(true)
	l.wake()
}

// Now is the time since the loop was made, on a clock that only goes forward,
// as of the beginning of this turn, or of the moment when results of inline
// disk work began to be handed back. Loop's thread only.
func (l *Loop) Now() time.Duration { return l.now }

// Clock reads the clock of Now. Where available it also counts while the
// machine is suspended. Any goroutine may call it.
func (l *Loop) Clock() time.Duration { return l.clock() }

// Turning is how long the present turn has lasted: 0 while the loop waits,
// and growing when a stream, the core or a disk does not return. Any goroutine
// may call it.
func (l *Loop) Turning() time.Duration {
	since := l.since.Load()
	if since == 0 {
		return 0
	}
	return max(0, l.clock()-time.Duration(since))
}

func (l *Loop) turn(core Core) error {
	if err := l.await(core.Deadline()); err != nil {
		return err
	}
	l.since.Store(max(1, int64(l.now)))
	l.runPosts()
	l.deliver()
	for i := 0; i < len(l.ports); i++ { // callbacks may add ports
		l.ports[i].receive()
	}
	core.Turn(l.now)
	l.deliver()
	for i := 0; i < len(l.ports); i++ {
		l.ports[i].flush()
	}
	l.reap()
	l.since.Store(0)
	return nil
}

// await returns when there is something to do, and what that is stands in the
// ports and queues.
func (l *Loop) await(deadline time.Duration) error {
	idle := !l.again
	l.again = false
	for _, s := range l.sources {
		idle = idle && !s.pending()
	}
	l.wait.begin()
	for _, p := range l.ports {
		if p.watch() {
			idle = false
		}
	}
	var spin time.Duration
	if l.active {
		spin = l.spin
	}
	l.active = false
	err := l.wait.wait(idle && deadline > l.now, deadline, spin)
	l.signal.Store(false) // before the queues are looked at: what comes later sets it again
	l.now = l.clock()
	return err
}

func (l *Loop) deliver() {
	for i := 0; i < len(l.sources); i++ {
		if l.sources[i].deliver() > 0 {
			l.active = true
		}
	}
}

// reap finishes the ports that have ended in this turn. It comes last, so that
// no stream is told Closed from within another call to it.
func (l *Loop) reap() {
	for l.ending {
		l.ending = false
		for i := 0; i < len(l.ports); {
			p := l.ports[i]
			if !p.ending {
				i++
				continue
			}
			l.ports = slices.Delete(l.ports, i, i+1)
			p.finish()
		}
	}
}

// end leaves nothing open and no post unanswered. It is a turn, too: what does
// not return in it is seen from outside.
func (l *Loop) end() {
	l.now = l.clock()
	l.since.Store(max(1, int64(l.now)))
	l.endPosts()
	for _, p := range l.ports {
		p.end(ErrStopped)
	}
	l.reap()
	l.wait.close()
	l.pumps.Wait()
	l.since.Store(0)
}

func (l *Loop) removeSource(s source) {
	l.sources = slices.DeleteFunc(l.sources, func(x source) bool { return x == s })
}
