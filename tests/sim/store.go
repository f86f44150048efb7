// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/internal/block"
)

// store is what a node has of a volume on stable storage, and how that behaves.
type store struct {
	node    *node
	ledger  *ledger
	data    *dataDisk
	meta    *metaDisk
	disk    int // how often it was replaced
	slow    bool
	suspect bool // a flush has failed: only a power cut shows what is left
	faults  []diskFault
	hung    [2]bool // by target: what is asked is not carried out

	parsed   [2]*bitmap.Metadata // what a crash leaves: nothing of the cache, or all
	parsedAt [2]int
}

// diskFault is what the next calls meet.
type diskFault struct {
	target block.Target
	op     block.Op
	any    bool // every operation, for good
	lie    bool // a flush says that it was done
}

func newStore(n *node, l *ledger) *store {
	s := &store{node: n, ledger: l}
	s.data = newDataDisk(s, l.sectors)
	s.format(bitmap.Blank)
	return s
}

func (s *store) String() string { return fmt.Sprintf("%s, volume %d", s.node.name, s.ledger.id) }

func (s *store) format(state bitmap.State) {
	w := s.node.world
	h := bitmap.Header{
		Cluster: "sim", Service: "db", Volume: s.ledger.name, Node: s.node.name, Peer: s.node.peerName(), DiskID: fmt.Sprint("disk ", s.disk),
		Size: int64(s.ledger.sectors) * sector, RegionSize: bitmap.MinRegionSize, IntentLimit: s.ledger.intents, Salt: w.disks.Uint64() | 1, State: state,
	}
	l, err := h.Layout()
	w.must(err)
	s.meta = newMetaDisk(l.Bytes())
	writes, err := bitmap.Format(h)
	w.must(err)
	for write := range writes {
		s.meta.write(write.Data, write.Offset)
	}
	s.meta.sync(false)
	s.parsed, s.parsedAt = [2]*bitmap.Metadata{}, [2]int{-1, -1}
}

func (n *node) peerName() string { return places[1-n.id] }

// replace puts another disk, with whatever is on it, in the place of one that
// failed.
func (s *store) replace() {
	w := s.node.world
	w.say("%s: the disk is replaced", s)
	s.disk++
	s.data = newDataDisk(s, s.ledger.sectors)
	for i := range s.data.current {
		v := garbage | w.disks.Uint64()>>8
		s.data.current[i], s.data.durable[i] = v, v
		s.ledger.touch(i)
	}
	s.heal()
	s.format(bitmap.Fresh)
}

func (s *store) heal() {
	s.faults, s.hung, s.slow = nil, [2]bool{}, false
}

// crash: the node's process has ended, with power or without.
func (s *store) crash(power bool) {
	s.hung, s.faults = [2]bool{}, nil
	if power {
		s.data.powerCut()
		s.meta.powerCut(s)
		s.suspect = false
	}
}

// load is what a new process finds. A disk that failed is replaced first.
func (s *store) load() *bitmap.Metadata {
	w := s.node.world
	for range 2 {
		m, err := bitmap.Load(s.meta, int64(len(s.meta.current)))
		w.must(err)
		switch {
		case m.Header.State == bitmap.Failed:
			s.replace()
		case m.IntentsLost:
			w.fail("%s: intents are lost", s)
		default:
			return m
		}
	}
	w.fail("%s: a new disk has failed", s)
	return nil
}

// meets takes the fault that a task meets, if any.
func (s *store) meets(t *block.Task) (f diskFault, ok bool) {
	for i, f := range s.faults {
		if f.any || f.target == t.Target && f.op == t.Op {
			if !f.any && !f.lie {
				s.faults = slices.Delete(s.faults, i, i+1)
			}
			return f, true
		}
	}
	return f, false
}

// carryOut does what a task says. change is the last change before it was given.
func (s *store) carryOut(t *block.Task, change uint64) error {
	w := s.node.world
	f, fails := s.meets(t)
	if fails && !f.lie {
		w.say("%s: %s of target %d fails", s, t.Op, t.Target)
		w.note("disk error", int64(s.node.id), int64(t.Op))
	}
	switch {
	case t.Op == block.Flush:
		if fails && f.lie {
			for _, at := range s.data.cached {
				s.ledger.rotten[at/perBlock] = true // who believes it may be wrong
			}
			return nil
		}
		s.suspect = s.suspect || fails
		if t.Target == block.Data {
			s.data.sync(change, fails)
		} else {
			s.meta.sync(fails)
		}
	case t.Target == block.Metadata:
		n := len(t.Data)
		if fails {
			n = min(n, w.disks.IntN(n/sector+1)*sector)
		}
		if n > 0 {
			s.meta.write(t.Data[:n], t.Offset)
		}
	case t.Op == block.Read:
		if !fails {
			s.data.read(t.Data, t.Offset)
		}
	case t.Op == block.Write:
		n := len(t.Data)
		if fails {
			n = w.disks.IntN(n/sector+1) * sector
		}
		s.data.write(t.Data[:n], t.Offset)
	case t.Op == block.WriteZeroes, t.Op == block.Trim:
		n := t.Length
		if fails {
			n = w.disks.Int64N(n/sector+1) * sector
		}
		s.data.zero(t.Offset, n)
	case t.Op == block.BlockStatus:
		t.Extents = append(t.Extents, block.Extent{Length: uint32(t.Length)})
	}
	if fails && !f.lie {
		w.after(0, w.reckon)
		return errMedium
	}
	return nil
}

// torn is what a crash leaves of a task that was under way.
func (s *store) torn(t *block.Task) {
	r := s.node.world.disks
	if s.hung[t.Target] || t.Op == block.Read || t.Op == block.Flush || r.IntN(2) == 0 {
		return
	}
	for at := int64(0); at < t.Length; at += sector {
		n := min(sector, t.Length-at)
		switch {
		case r.IntN(3) == 0:
		case t.Target == block.Metadata:
			s.meta.write(t.Data[at:at+n], t.Offset+at)
		case t.Op == block.Write:
			s.data.write(t.Data[at:at+n], t.Offset+at)
		case t.Op == block.WriteZeroes, t.Op == block.Trim:
			s.data.zero(t.Offset+at, n)
		}
	}
}

// takes is how long a task takes.
func (s *store) takes(t *block.Task) time.Duration {
	r := s.node.world.disks
	low, high := 5*time.Microsecond, 400*time.Microsecond
	if t.Op == block.Flush {
		low, high = 200*time.Microsecond, 8*time.Millisecond
	}
	if s.slow {
		low, high = 20*low, 20*high
	}
	return between(r, low, high)
}

// stored is the metadata as a crash would leave it at the extremes, with the
// intents taken for dirty blocks, as a process that starts takes them.
func (s *store) stored() [2]*bitmap.Metadata {
	for i, content := range [...]image{s.meta.durable, s.meta.current} {
		if s.parsedAt[i] == s.meta.changes[i] {
			continue
		}
		if i == 1 && len(s.meta.cached) == 0 {
			s.parsed[1], s.parsedAt[1] = s.parsed[0], s.meta.changes[1]
			continue
		}
		m, err := bitmap.Load(content, int64(len(content)))
		s.node.world.must(err)
		for _, region := range m.Regions {
			run := m.Layout.Region(region)
			m.Bits.Set(run.First, run.Count)
		}
		s.parsed[i], s.parsedAt[i] = m, s.meta.changes[i]
	}
	return s.parsed
}

// covers reports whether a block is found dirty here after whatever crash.
func (s *store) covers(b int) bool {
	m := s.stored()
	return m[0].Bits.Any(int64(b), 1) && m[1].Bits.Any(int64(b), 1)
}
