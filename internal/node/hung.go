// SPDX-License-Identifier: Apache-2.0

package node

import (
	"fmt"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/mirror"
)

// A disk call within a turn of the loop may not return: then the loop's thread
// can notice nothing itself, and nobody can go on in its place without knowing
// what the call has done. So the volume is watched from outside, and what is
// done about it is to say so (rule 8). To the peer the node is silent: a
// secondary is lost to its primary after peer-timeout; of a primary the
// heartbeats say it, which renew no lease. When the call returns the loop goes on
// where it was; with another session, and other rights, if it was given up.
//
// What hangs on a worker is the engine's matter: CheckDisk.

// Hung is for how long the present turn of the loop has lasted: microseconds as
// a rule, and growing without bound when a call does not return. From patience
// on the volume hangs. Any goroutine may call it; it waits for nobody.
func (v *volume) Hung() time.Duration { return v.loop.Turning() }

// patience is after how long a turn that does not end counts as hung.
func (v *volume) patience() time.Duration { return v.service.cfg.DiskTimeout }

// hungWhy is one sentence about a loop that hangs.
func (v *volume) hungWhy() string {
	why := fmt.Sprintf("the data path has not turned for %v", v.Hung().Round(time.Second))
	if v.disks.Stuck() >= v.patience() {
		why += fmt.Sprintf(": the disk %s does not answer", v.store.diskPath())
	}
	return why
}

// watch looks at a volume from outside its loop.
type watch struct {
	volume *volume
	late   bool // at the last look
	hung   bool
}

// look is called several times in the time of patience. Two looks must find the
// loop late: at the first one it may be this process that had been stopped.
func (w *watch) look() {
	v := w.volume
	late := v.Hung() >= v.patience()
	switch {
	case late && w.late:
		v.publishHung()
		w.become(true, v.hungWhy())
	case !late:
		w.become(false, "the call has returned")
	}
	w.late = late
}

// become tells of a change.
func (w *watch) become(hung bool, reason string) {
	if w.hung == hung {
		return
	}
	v, states := w.volume, [...]string{"turning", "hung"}
	w.hung = hung
	old, now := states[0], states[1]
	if !hung {
		old, now = now, old
	}
	v.log.Warn("data path changed", "old", old, "new", now, "reason", reason)
	v.service.node.events.Add(control.Event{
		Service: v.service.cfg.Name, Volume: v.cfg.Name, Kind: "data path", Old: old, New: now, Reason: reason, Who: v.service.node.self.Name,
	})
	v.service.poke()
}

// publishHung puts right what the loop said last, which holds no longer: that it
// has a session with the peer.
func (v *volume) publishHung() {
	last := v.status.Load()
	s := *last
	s.KeptInStep = s.KeptInStep || s.Session == mirror.Mirroring
	s.Session, s.Reason = mirror.Disconnected, v.hungWhy()
	v.status.CompareAndSwap(last, &s)
}
