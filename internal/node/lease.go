// SPDX-License-Identifier: Apache-2.0

package node

import (
	"sync/atomic"
	"time"

	"github.com/twinbd/twinbd/failover"
)

// lease is until when replies may leave a volume (rule 20). It is set by the
// goroutine of the service and read on the thread of the volume's loop, right
// before bytes go out; so a process that stood still, or was late for whatever
// reason, lets nothing out that was decided before.
type lease struct {
	until atomic.Int64
	clock func() time.Duration
}

// extend sets the end, on the node's clock: sooner or later than before.
func (l *lease) extend(until time.Duration) { l.until.Store(int64(until)) }

// holds reports whether a reply may leave now.
func (l *lease) holds() bool {
	until := time.Duration(l.until.Load())
	return until == failover.Forever || l.clock() < until
}
