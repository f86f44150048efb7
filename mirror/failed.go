// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/internal/block"
)

// localFailed is what an error of the local disk means (rule 8): this copy is
// failed, durably where it can still be written. Nothing is tried again. A
// secondary leaves; a primary goes on from its peer's disk, once the record
// names the peer (rule 18).
func (e *Engine) localFailed(doing string, err error) {
	if e.local == diskFailed {
		return
	}
	e.local, e.silent, e.broke = diskFailed, "", true
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

// CheckDisk fails the local disk when it has owed an answer for the timeout
// (rule 8), and lets go on without it what waits for one. The last good copy is
// waited for instead, for as long as it takes (rule 23): nobody could go on
// without it, and a controller that is reset may answer yet. stuck is what the
// driver of the disks says. It wants to be called with every Tick: time in which
// nobody called does not count, for then it may have been this process that
// stood still and not the disk.
func (e *Engine) CheckDisk(now, stuck time.Duration) {
	e.now = now
	if now-e.checked > e.cfg.DiskTimeout/2 {
		e.watched = now
	}
	e.checked = now
	if min(stuck, now-e.watched) < e.cfg.DiskTimeout {
		e.becomeSilent("")
		return
	}
	why := fmt.Sprintf("no answer for %v", stuck.Round(time.Second))
	if e.local == diskGood && e.lastCopy() {
		e.becomeSilent(why)
		return
	}
	e.localFailed("wait for the disk", errors.New(why))
	e.recall()
	e.settle()
}

// lastCopy reports whether no other disk is known to have the same blocks now.
func (e *Engine) lastCopy() bool {
	switch e.session.state {
	case Mirroring:
		return false
	case Comparing, Resyncing:
		return e.resync.source
	}
	return e.header.State == bitmap.Consistent
}

// becomeSilent: the last good copy does not answer, or answers again.
func (e *Engine) becomeSilent(why string) {
	states := map[bool]string{true: "answers", false: "silent"}
	if old, now := states[e.silent == ""], states[why == ""]; old != now {
		e.observe("disk", old, now, why)
	}
	e.silent = why
}

// recall takes back what a disk that failed still holds of clients' requests,
// and lets each go on as if the disk had answered with an error. From here on
// their memory is their own again (Config.Recall). What the disk holds for the
// engine itself keeps its memory until it comes back, if ever.
func (e *Engine) recall() {
	e.tasks = slices.DeleteFunc(e.tasks, func(t *block.Task) bool {
		_, client := t.Engine.(*diskTask)
		return client // the driver has not seen it yet
	})
	for _, slab := range e.ops.slabs {
		for i := range slab {
			if o := &slab[i]; o.local {
				e.cfg.Recall(&o.task.Task)
				o.task.op, o.task, o.local = nil, new(diskTask), false
				e.withoutDisk(o)
			}
		}
	}
}

// withoutDisk goes on with an op that the failed disk held.
func (e *Engine) withoutDisk(o *op) {
	switch o.kind {
	case block.Read:
		e.read(o)
	case block.Cache:
		e.cache(o)
	case block.BlockStatus:
		e.blockStatus(o)
	default:
		e.advance(o)
	}
}
