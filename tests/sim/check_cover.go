// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/mirror"
)

// The checkers: what must hold at every moment. Each looks only at what has
// changed since it last looked.

// check runs after every event.
func (w *world) check() {
	for _, l := range w.volumes {
		l.checkCover()
	}
}

// checkCover is Cover: every block of which a crash may leave unlike contents on
// the two disks is then found dirty by one of the nodes. What a cache holds may
// survive or not, on each disk by itself.
func (l *ledger) checkCover() {
	a, b := l.world.nodes[alpha].stores[l.id], l.world.nodes[beta].stores[l.id]
	metas := [2][2]int{a.meta.changes, b.meta.changes}
	if len(l.touched) == 0 && metas == l.metas {
		return
	}
	for _, k := range l.touched {
		l.pending[k] = false
		differs := l.mayDiffer(a, b, k)
		if differs != l.differs[k] {
			l.differs[k] = differs
			if differs {
				l.count++
			} else {
				l.count--
			}
		}
	}
	if l.count > 0 && known(a) && known(b) {
		if metas != l.metas {
			for k, differs := range l.differs {
				if differs {
					l.covered(a, b, k)
				}
			}
		} else {
			for _, k := range l.touched {
				if l.differs[k] {
					l.covered(a, b, k)
				}
			}
		}
	}
	l.touched, l.metas = l.touched[:0], metas
}

// mayDiffer reports whether a crash may leave a block unlike.
func (l *ledger) mayDiffer(a, b *store, k int) bool {
	for s := k * perBlock; s < (k+1)*perBlock; s++ {
		if c := a.data.current[s]; c != b.data.current[s] || c != a.data.durable[s] || c != b.data.durable[s] {
			return true
		}
		if !a.data.settled(s) && a.data.unlike(s) || !b.data.settled(s) && b.data.unlike(s) {
			return true
		}
	}
	return false
}

// unlike reports whether something in the cache differs from what is read.
func (d *dataDisk) unlike(s int) bool {
	for _, v := range d.cache[s] {
		if v.content != d.current[s] {
			return true
		}
	}
	return false
}

func (l *ledger) covered(a, b *store, k int) {
	l.world.stats.Covers++
	if !a.covers(k) && !b.covers(k) && !l.rotten[k] {
		l.world.fail("cover: block %d of volume %d may differ and nobody would know: alpha %v/%v, beta %v/%v", k, l.id,
			a.data.current[k*perBlock:(k+1)*perBlock], a.data.durable[k*perBlock:(k+1)*perBlock],
			b.data.current[k*perBlock:(k+1)*perBlock], b.data.durable[k*perBlock:(k+1)*perBlock])
	}
}

// known reports whether a disk holds data, whatever a crash leaves: of one that
// does not, all is copied.
func known(s *store) bool {
	for _, m := range s.stored() {
		switch m.Header.State {
		case bitmap.Blank, bitmap.Fresh, bitmap.Failed:
			return false
		}
	}
	return true
}

// checkMarks: while nothing is replicated, every true difference is marked in the
// memory of a node that runs, or where one finds it that will.
func (v *volume) checkMarks() {
	l := v.ledger
	w := l.world
	if l.count == 0 || v.process.ended || !v.engine.Primary() || v.status.Session != mirror.Disconnected || v.status.InFlight > 0 || v.status.DiskFailed != "" {
		return
	}
	other := w.nodes[1-v.process.node.id]
	st := other.stores[l.id]
	if p := other.process; p != nil && p.volumes[l.id].status.Session != mirror.Disconnected || !known(st) || !known(v.store) || len(v.tasks[block.Data]) > 0 {
		return
	}
	for k, differs := range l.differs {
		if !differs || l.rotten[k] || v.engine.Dirty(int64(k), 1) || st.covers(k) {
			continue
		}
		for s := k * perBlock; s < (k+1)*perBlock; s++ {
			if v.store.data.current[s] != st.data.durable[s] {
				w.fail("marks: block %d of volume %d differs, and %s, which serves alone, has not marked it", k, l.id, v.process.node.name)
			}
		}
	}
}
