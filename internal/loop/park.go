// SPDX-License-Identifier: Apache-2.0

package loop

import "time"

// park waits on a channel, for loops whose connections are all pumps.
type park struct {
	loop  *Loop
	bell  chan struct{}
	timer *time.Timer
}

func newPark(l *Loop) (waiter, func() time.Duration) {
	start := time.Now()
	return &park{loop: l, bell: make(chan struct{}, 1)}, func() time.Duration { return time.Since(start) }
}

func (w *park) open() error {
	w.timer = time.NewTimer(maxSleep)
	return nil
}

func (w *park) close() { w.timer.Stop() }

func (w *park) interrupt() {
	select {
	case w.bell <- struct{}{}:
	default:
	}
}

func (w *park) begin() {}

func (w *park) watch(*Port, bool, bool) {}

func (w *park) wait(idle bool, deadline, _ time.Duration) error {
	if !idle || !w.loop.fallAsleep() {
		return nil
	}
	w.timer.Reset(w.loop.sleepTime(deadline))
	select {
	case <-w.bell:
	case <-w.timer.C:
	}
	w.loop.awaken()
	return nil
}
