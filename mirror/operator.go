// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"errors"
	"fmt"
	"time"
)

// ErrClean is returned when a resync was asked for and no block is marked.
var ErrClean = errors.New("no block is marked as different")

// Resync copies this node's marked blocks to the peer: what a verify found, or
// with full every block. The session begins anew for it, so that the decision
// and the steps are those of any reconnection.
func (e *Engine) Resync(now time.Duration, full bool) error {
	e.now = now
	switch {
	case !e.primary:
		return fmt.Errorf("this node does not serve the volume: run it on the one whose data counts")
	case e.session.state != Mirroring:
		return fmt.Errorf("%w: %s", ErrNotMirroring, e.session.reason)
	case !full && e.dirty.Count() == 0:
		return ErrClean
	}
	if full {
		e.dirty.Set(0, e.dirty.Blocks())
	}
	e.meta.wantPages(nil)
	e.becomeDisconnected("resync asked for")
	e.settle()
	return nil
}
