// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"errors"
	"fmt"
	"time"
)

// ErrBeat: a beat says what no node can say.
var ErrBeat = errors.New("impossible heartbeat")

// Check refuses a beat that came to the process boot at the time now, on its own
// clock, and contradicts itself. It is to be asked before Heard: what a beat says
// becomes durable, and a node whose own state would contradict itself ends. self
// and peer are the two names that a record may have.
func (b *Beat) Check(now time.Duration, boot uint64, self, peer string) error {
	if err := b.View.check(); err != nil {
		return fmt.Errorf("%w: %w", ErrBeat, err)
	}
	most := max(b.View.Epoch, b.InStep, b.Promise, b.Held, b.Disowned)
	switch highest := max(b.Known, b.Follows, b.Term, b.Teach); {
	case highest > MaxEpoch:
		return fmt.Errorf("%w: a number of %d is above %d", ErrBeat, highest, uint64(MaxEpoch))
	case b.Known < most:
		return fmt.Errorf("%w: it speaks of %d, and knows no number above %d", ErrBeat, most, b.Known)
	case b.View.Epoch != 0 && b.View.Holder != self && b.View.Holder != peer:
		return fmt.Errorf("%w: the record names %q, which is neither %s nor %s", ErrBeat, b.View.Holder, self, peer)
	case b.Wanted > WantStop:
		return fmt.Errorf("%w: %v is neither start nor stop", ErrBeat, b.Wanted)
	case b.Sent < 0 || b.EchoBoot == boot && (b.Echo < 0 || b.Echo > now):
		// A lease counts from the echo: from the future it would last too long.
		return fmt.Errorf("%w: it was sent at %v, and answers what was said at %v, and it is %v", ErrBeat, b.Sent, b.Echo, now)
	}
	return nil
}
