// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package failover

import "time"

// NewClock returns the time since now. Where it stands still while the machine
// is suspended, the other node waits that much longer.
func NewClock() func() time.Duration {
	start := time.Now()
	return func() time.Duration { return time.Since(start) }
}
