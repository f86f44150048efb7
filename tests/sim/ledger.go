// SPDX-License-Identifier: Apache-2.0

package sim

import "fmt"

// ledger is what is true of a volume, whatever the nodes think: what clients were
// told and may read, and where the two disks may differ.
//
// A sector holds its last acknowledged version, or that of a write that was begun
// after it and not acknowledged: such a one may be there or not, until somebody
// has read it. Versions are numbered in the order of submission, in which
// overlapping changes are carried out.
type ledger struct {
	world      *world
	id         int
	name       string
	sectors    int
	intents    int
	flushBytes int64

	acked   []uint64
	maybe   [][]uint64 // begun later than acked
	flushed []uint64
	since   [][]settled // since flushed, up to acked, oldest first
	zeroAt  []uint64    // the last version that reads as zero
	zeroes  map[uint64]bool
	acks    uint64       // clock of acknowledgements
	unflush []int        // sectors with anything in since
	rotten  map[int]bool // blocks changed, or lost, behind the engines' backs

	touched []int  // blocks to look at
	pending []bool // by block: it is in touched
	differs []bool // by block: a crash may leave the disks unlike
	count   int    // of these
	metas   [2][2]int

	clients []*client
	old     [2][]byte // a frame that each node has sent in an earlier session
	haunts  int       // such frames that are to come back
	spoil   int       // pieces of data that are to be damaged on the way
}

// settled is a version that was acknowledged or overwritten, and when.
type settled struct{ version, at uint64 }

func newLedger(w *world, id int) *ledger {
	blocks := 64 + w.disks.IntN(64)
	l := &ledger{
		world: w, id: id, name: fmt.Sprint("v", id), sectors: blocks * perBlock, intents: 2 + w.disks.IntN(4),
		zeroes: make(map[uint64]bool), rotten: make(map[int]bool),
		pending: make([]bool, blocks), differs: make([]bool, blocks),
	}
	if w.disks.IntN(4) == 0 {
		l.flushBytes = int64(48+w.disks.IntN(200)) * sector
	}
	n := l.sectors
	l.acked, l.flushed, l.zeroAt = make([]uint64, n), make([]uint64, n), make([]uint64, n)
	l.maybe, l.since = make([][]uint64, n), make([][]settled, n)
	for range 1 + w.clients.IntN(3) {
		l.clients = append(l.clients, &client{ledger: l})
	}
	return l
}

// touch: a disk has changed in a sector.
func (l *ledger) touch(s int) {
	if b := s / perBlock; !l.pending[b] {
		l.pending[b] = true
		l.touched = append(l.touched, b)
	}
}

// content is what a sector of version v reads as.
func (l *ledger) content(v uint64) uint64 {
	if l.zeroes[v] {
		return 0
	}
	return v
}

func (l *ledger) begin(s int, v uint64, zero bool) {
	l.maybe[s] = append(l.maybe[s], v)
	if zero {
		l.zeroAt[s] = v
	}
}

// pin: version v was acknowledged, or somebody has read it. A later one that was
// stays.
func (l *ledger) pin(s int, v uint64) {
	if v > l.acked[s] {
		l.settle(s, v)
	}
}

// settle: sector s holds version v. Earlier ones are overwritten; only a power
// cut can bring them back, until v is flushed.
func (l *ledger) settle(s int, v uint64) {
	m := l.maybe[s]
	if len(l.since[s]) == 0 {
		l.unflush = append(l.unflush, s)
	}
	l.acks++
	i := 0
	for ; i < len(m) && m[i] <= v; i++ {
		l.since[s] = append(l.since[s], settled{m[i], l.acks})
	}
	l.maybe[s] = m[:copy(m, m[i:])]
	l.acked[s] = v
}

// possible finds the version that content c of a sector is, if it may be there.
func (l *ledger) possible(s int, c uint64) (v uint64, ok bool) {
	if c == l.content(l.acked[s]) {
		return l.acked[s], true
	}
	for _, v := range l.maybe[s] {
		if l.content(v) == c {
			return v, true
		}
	}
	return 0, false
}

// observe: somebody has read content c, which pins it.
func (l *ledger) observe(s int, c uint64, where string) {
	v, ok := l.possible(s, c)
	switch {
	case !ok && l.rotten[s/perBlock]:
		l.world.excused++
	case !ok:
		l.world.fail("ack: %s: volume %d, sector %d (block %d) holds version %d; acknowledged %d, flushed %d, possible %v",
			where, l.id, s, s/perBlock, c, l.acked[s], l.flushed[s], l.maybe[s])
	default:
		l.pin(s, v)
	}
}

// flush: version v of sector s, and all before it, are durable.
func (l *ledger) flush(s int, v uint64) {
	k := l.since[s]
	i := 0
	for i < len(k) && k[i].version <= v {
		i++
	}
	l.since[s] = k[:copy(k, k[i:])]
	l.flushed[s] = max(l.flushed[s], v)
}

// compact forgets the sectors of which all is flushed.
func (l *ledger) compact() {
	kept := l.unflush[:0]
	for _, s := range l.unflush {
		if len(l.since[s]) > 0 {
			kept = append(kept, s)
		}
	}
	l.unflush = kept
}

// mayLose: every version since the last flush may be there or not.
func (l *ledger) mayLose() {
	l.world.stats.Losses++
	l.world.say("volume %d may lose what was not flushed", l.id)
	l.compact()
	for _, s := range l.unflush {
		var back []uint64
		for _, k := range l.since[s] {
			back = append(back, k.version)
		}
		l.maybe[s] = append(back, l.maybe[s]...)
		l.acked[s], l.since[s] = l.flushed[s], nil
	}
	l.unflush = l.unflush[:0]
}

// has reports whether content c is version v of a sector, or a later one.
func (l *ledger) has(s int, c, v uint64) bool {
	return c == l.content(v) || c > v && c < garbage || c == 0 && l.zeroAt[s] >= v
}

// whole reports whether a disk, with its cache, has every acknowledged version.
func (l *ledger) whole(st *store) bool {
	for s, c := range st.data.current {
		if _, ok := l.possible(s, c); !ok && !l.rotten[s/perBlock] {
			return false
		}
	}
	return true
}

// sound: what rotted, or was lost by a lie, is as it is on both disks again.
func (l *ledger) sound(d *dataDisk) {
	for s, c := range d.current {
		if _, ok := l.possible(s, c); !ok && l.rotten[s/perBlock] {
			l.world.excused++
			l.acked[s], l.maybe[s], l.since[s] = c, nil, nil
			l.flushed[s] = c
		}
	}
	clear(l.rotten)
	l.compact()
}
