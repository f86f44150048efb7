// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// NewClock returns the time since now, which runs while the machine is
// suspended: what a node has counted as passed has passed for the witness too.
func NewClock() func() time.Duration {
	start := boottime()
	return func() time.Duration { return boottime() - start }
}

func boottime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(fmt.Sprintf("failover: read CLOCK_BOOTTIME: %v", err)) // in Linux since 2.6.39
	}
	return time.Duration(ts.Nano())
}
