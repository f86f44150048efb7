// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"sync"
	"time"
)

// A loop is woken by a flag, and by a system call only when it sleeps: it says
// that it is asleep, looks at the flag once more, and only then sleeps; who
// has something sets the flag and then looks whether it is asleep. One of the
// two sees the other.

// waiter is how a loop waits for connections and for wake-ups.
type waiter interface {
	open() error
	close()

	// begin starts a new set of connections; watch adds one that is wanted
	// for reading or writing.
	begin()
	watch(p *Port, read, write bool)

	// wait returns when a watched connection is ready, having marked it, when
	// the loop is signalled, or at the deadline; at once unless idle. It spins
	// for a while before it sleeps. It may return early.
	wait(idle bool, deadline, spin time.Duration) error

	// interrupt ends a sleep. Any goroutine may call it, also after close.
	interrupt()
}

// posts are functions for the loop's thread.
type posts struct {
	mu    sync.Mutex
	queue []func()
	ended bool
	spare []func() // the loop's: the other slice
}

// Post runs f on the loop's thread in the next turn, in the order of the
// calls. Any goroutine may call it, also before Run. It returns false, and f
// is never run, when the loop has ended; else f runs exactly once.
func (l *Loop) Post(f func()) bool {
	l.posts.mu.Lock()
	if l.posts.ended {
		l.posts.mu.Unlock()
		return false
	}
	l.posts.queue = append(l.posts.queue, f)
	l.posts.mu.Unlock()
	l.wake()
	return true
}

// wake makes the loop take another turn. Any goroutine may call it.
func (l *Loop) wake() {
	l.signal.Store(true)
	if l.asleep.Load() && l.asleep.Swap(false) {
		l.wait.interrupt()
	}
}

// fallAsleep reports whether the loop may sleep; awaken follows it then.
func (l *Loop) fallAsleep() bool {
	l.asleep.Store(true)
	if l.signal.Load() {
		l.asleep.Store(false)
		return false
	}
	return true
}

func (l *Loop) awaken() { l.asleep.Store(false) }

// sleepTime is how long a loop may sleep that wants to wake at deadline.
func (l *Loop) sleepTime(deadline time.Duration) time.Duration {
	return max(0, min(deadline-l.clock(), maxSleep))
}

func (l *Loop) runPosts() { l.runPostsOnce(false) }

// endPosts runs what was accepted and accepts no more.
func (l *Loop) endPosts() { l.runPostsOnce(true) }

func (l *Loop) runPostsOnce(last bool) {
	q := &l.posts
	q.mu.Lock()
	run := q.queue
	q.queue = q.spare[:0]
	q.ended = q.ended || last
	q.mu.Unlock()
	for i, f := range run {
		f()
		run[i] = nil
	}
	if len(run) > 0 {
		l.active = true
	}
	q.spare = run
}

func (l *Loop) hasEnded() bool {
	l.posts.mu.Lock()
	defer l.posts.mu.Unlock()
	return l.posts.ended
}
