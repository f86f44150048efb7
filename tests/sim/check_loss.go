// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/failover"
	"github.com/twinbd/twinbd/mirror"
)

// What may be lost: of what was acknowledged only what was not flushed, and only
// when no node is left that has it and is chosen.

// reckon finds out, when a node has lost its process, its power or a disk, whether
// some node certainly has everything and is certainly chosen. If not, what was not
// flushed may be gone.
func (w *world) reckon() {
	for _, l := range w.volumes {
		a, b := w.nodes[alpha], w.nodes[beta]
		wholeA, wholeB := l.whole(a.stores[l.id]), l.whole(b.stores[l.id])
		switch {
		case wholeA && wholeB, a.keeps(), b.keeps():
		case w.seen.Mode == failover.Alone && w.seen.Holder == a.name && wholeA:
		case w.seen.Mode == failover.Alone && w.seen.Holder == b.name && wholeB:
		default:
			l.mayLose()
		}
	}
}

// chosen: a node begins to serve. One that has lost what was not flushed may do so
// when nobody who has it can be heard (rule 22); else clients miss what they were
// told, and that is found.
func (w *world) chosen(v *volume) {
	n, l := v.process.node, v.ledger
	if l.whole(v.store) {
		return
	}
	o := n.peer()
	if heard := o.keeps() && !o.process.still() && w.reaches(alpha, beta) && w.now-w.trouble > 3*timeout; !heard {
		l.mayLose()
	}
}

// keeps reports whether a node runs, has everything, and serves or has been in step
// since it began and is an equal: then its blocks win. One that is behind on one
// volume wins on none (rule 10).
func (n *node) keeps() bool {
	p := n.process
	if p == nil {
		return false
	}
	for i, v := range p.volumes {
		st := v.engine.Status()
		equal := v.store.stored()[1].Header.Generation == n.peer().stores[i].stored()[1].Header.Generation
		inStep := (st.KeptInStep || st.Session == mirror.Mirroring) && equal
		if st.DiskFailed != "" || st.State != bitmap.Consistent || !st.Primary && !inStep || !v.ledger.whole(v.store) {
			return false
		}
	}
	return true
}
