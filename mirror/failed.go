// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"fmt"
	"time"

	"github.com/twinbd/twinbd/bitmap"
)

// localFailed is what an error of the local disk means (rule 8): this copy is
// failed, durably where it can still be written. Nothing is tried again. A
// secondary leaves; a primary goes on from its peer's disk, once the record
// names the peer (rule 18).
func (e *Engine) localFailed(doing string, err error) {
	if e.local == diskFailed {
		return
	}
	e.local = diskFailed
	e.localWhy = fmt.Sprintf("%s: %v", doing, err)
	e.observe("disk", "good", "failed", e.localWhy)
	e.header.State, e.header.Reason = bitmap.Failed, e.localWhy
	e.meta.wantHeader(nil)
	e.rounds.localLost()
	e.promoting = promotion{} // to serve what? its caller learns of it as an event
	if !e.primary {
		e.becomeDisconnected("the local disk failed: " + e.localWhy)
		e.rounds.check(e)
		e.departed()
		return
	}
	e.remote.begin(e)
	e.freeIntents()
	e.thaw()
	e.rounds.check(e)
}

// freeIntents lets ops go on that waited for intents: the local disk, which
// the intents protect, takes no part any more.
func (e *Engine) freeIntents() {
	waiting := e.marks.waiting.take()
	for o := waiting.pop(); o != nil; o = waiting.pop() {
		e.run = append(e.run, o)
	}
	e.retryIntents()
}

// CheckDisk fails the local disk when its oldest task is older than the
// timeout (rule 8). stuck is what the driver of the disks says.
func (e *Engine) CheckDisk(now, stuck time.Duration) {
	e.now = now
	if stuck >= e.cfg.DiskTimeout && e.local == diskGood {
		e.localFailed("wait for the disk", fmt.Errorf("no answer for %v", stuck.Round(time.Second)))
		e.settle()
	}
}
