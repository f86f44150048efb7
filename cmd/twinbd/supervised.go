// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// What a daemon says to the supervisor that started it, where that listens:
// systemd's, with Type=notify. See systemd/.

// supervisor hears one word; without one nothing happens.
func supervisor(word string) { _, _ = daemon.SdNotify(false, word) }

// reassure tells a supervisor that has a watchdog that all is well, as long as it is,
// until ctx ends. alive is asked three times within the watchdog's limit, and gets it.
func reassure(ctx context.Context, alive func(within time.Duration) bool) {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil || limit <= 0 {
		return
	}
	tick := time.NewTicker(limit / 3)
	defer tick.Stop()
	for {
		if alive(limit) {
			supervisor(daemon.SdNotifyWatchdog)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
