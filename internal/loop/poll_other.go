// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package loop

import "time"

// newWaiter returns how this system waits, and the loop's clock.
func newWaiter(l *Loop, _ bool) (waiter, func() time.Duration) { return newPark(l) }
