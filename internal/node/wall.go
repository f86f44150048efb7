// SPDX-License-Identifier: Apache-2.0

package node

import (
	"fmt"
	"time"

	"github.com/twinbd/twinbd/control"
)

// wallApart is from where the nodes' wall clocks count as different: people then
// read the two logs in the wrong order. Nothing else depends on them.
const wallApart = 10 * time.Second

// lateBeats is how many beats may come as late as that, one after the other, from
// a node that was frozen for a while.
const lateBeats = 20

// compareClocks notes how the peer's wall clock differs from this node's.
func (n *Node) compareClocks(there time.Time) {
	if there.IsZero() {
		return // an older version does not say
	}
	apart := there.Sub(n.wall())
	n.mu.Lock()
	defer n.mu.Unlock()
	text := ""
	if n.behind++; apart >= -wallApart {
		n.behind = 0
	}
	switch {
	case n.behind > 0 && n.behind < lateBeats:
		return
	case apart > wallApart:
		text = fmt.Sprintf("the clock of %s is %s ahead", n.peer.Name, roughly(apart))
	case apart < -wallApart:
		text = fmt.Sprintf("the clock of %s is %s behind", n.peer.Name, roughly(-apart))
	}
	news := (text == "") != (n.clocks == "")
	if n.clocks = text; !news {
		return
	}
	e := control.Event{Kind: "clocks", Old: "alike", New: "apart", Reason: text, Who: n.self.Name}
	if text == "" {
		e.Old, e.New = e.New, e.Old
	}
	n.log.Warn("clocks", "old", e.Old, "new", e.New, "reason", e.Reason)
	n.events.Add(e)
}

// roughly is a time as people say it.
func roughly(d time.Duration) string {
	const day, year = 24 * time.Hour, 8766 * time.Hour
	switch {
	case d >= 2*year:
		return fmt.Sprintf("%d years", d/year)
	case d >= 2*day:
		return fmt.Sprintf("%d days", d/day)
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", d/time.Hour)
	}
	return d.Round(time.Second).String()
}
