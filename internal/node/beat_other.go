// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package node

import (
	"net"
	"time"
)

// limitUnacknowledged is left to the system's own limits.
func limitUnacknowledged(net.Conn, time.Duration) {}
