// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/twinbd/twinbd/internal/block"
)

// sector is what a disk writes all or not at all.
const sector = 512

// perBlock is the number of sectors that are marked together.
const perBlock = block.Size / sector

// Every sector of a volume's data holds one number, repeated: the version that a
// client wrote there, 0 for zeroes, or one with garbage set. So a disk of the
// simulation keeps numbers, and what is compared all the time is cheap to compare.
const garbage = 1 << 62

var errMedium = errors.New("medium error")

// dataDisk is a disk with a volatile cache. What was written is read back; it
// survives a power cut after a flush that was begun later and succeeded.
type dataDisk struct {
	store   *store
	current []uint64
	durable []uint64
	cache   [][]version // by sector, oldest first: what is not durable
	cached  []int       // sectors with a cache, in the order of their first change
	changes uint64
}

// version is what a sector held between two changes.
type version struct {
	content uint64
	change  uint64
	doomed  bool // a flush that should have made it durable has failed
}

func newDataDisk(s *store, sectors int) *dataDisk {
	return &dataDisk{store: s, current: make([]uint64, sectors), durable: make([]uint64, sectors), cache: make([][]version, sectors)}
}

func (d *dataDisk) set(s int, content uint64) {
	if len(d.cache[s]) == 0 {
		d.cached = append(d.cached, s)
	}
	d.current[s] = content
	d.cache[s] = append(d.cache[s], version{content: content, change: d.changes})
	d.store.ledger.touch(s)
}

// write takes the bytes of some sectors, each of one number.
func (d *dataDisk) write(p []byte, offset int64) {
	d.changes++
	for s := int(offset / sector); len(p) > 0; s++ {
		d.set(s, number(p[:sector], d.store))
		p = p[sector:]
	}
}

func (d *dataDisk) zero(offset, length int64) {
	d.changes++
	for s := offset / sector; s < (offset+length)/sector; s++ {
		d.set(int(s), 0)
	}
}

func (d *dataDisk) read(p []byte, offset int64) {
	for s := int(offset / sector); len(p) > 0; s++ {
		fill(p[:sector], d.current[s])
		p = p[sector:]
	}
}

// sync makes durable what was changed up to a change. A flush that fails dooms
// it: it is read back, and no later flush makes it durable.
func (d *dataDisk) sync(change uint64, fails bool) {
	kept := d.cached[:0]
	for _, s := range d.cached {
		c := d.cache[s]
		last := len(c) - 1
		for last >= 0 && c[last].change > change {
			last--
		}
		switch {
		case last >= 0 && fails:
			for i := range c[:last+1] {
				c[i].doomed = true
			}
		case last >= 0 && !c[last].doomed:
			d.durable[s] = c[last].content
			c = c[:copy(c, c[last+1:])]
			d.store.ledger.touch(s)
		}
		if d.cache[s] = c; len(c) > 0 {
			kept = append(kept, s)
		}
	}
	d.cached = kept
}

// powerCut keeps of the cache what chance allows: of each sector some version,
// whatever became of its neighbours.
func (d *dataDisk) powerCut() {
	r := d.store.node.world.disks
	lose := r.Float64()
	for _, s := range d.cached {
		c := d.cache[s]
		kept := len(c) - 1
		for kept >= 0 && r.Float64() < lose {
			kept--
		}
		if kept >= 0 {
			d.durable[s] = c[kept].content
		}
		d.current[s], d.cache[s] = d.durable[s], c[:0]
		d.store.ledger.touch(s)
	}
	d.cached = d.cached[:0]
}

// settled reports whether a sector holds one thing, whatever happens.
func (d *dataDisk) settled(s int) bool { return len(d.cache[s]) == 0 }

// number is what a sector is filled with.
func number(p []byte, st *store) uint64 {
	v := binary.BigEndian.Uint64(p)
	for i := 8; i < sector; i += 8 {
		if binary.BigEndian.Uint64(p[i:]) != v {
			st.node.world.fail("%s writes a sector of several writes: %x and %x", st, v, binary.BigEndian.Uint64(p[i:]))
		}
	}
	return v
}

func fill(p []byte, v uint64) {
	for i := 0; i < len(p); i += 8 {
		binary.BigEndian.PutUint64(p[i:], v)
	}
}

// metaDisk is the same for metadata: bytes, in order of time one call after the
// other.
type metaDisk struct {
	current []byte
	durable []byte
	cache   map[int][][]byte
	cached  []int
	doomed  map[int]bool
	changes [2]int // of durable, of current
}

func newMetaDisk(size int64) *metaDisk {
	return &metaDisk{current: make([]byte, size), durable: make([]byte, size), cache: make(map[int][][]byte), doomed: make(map[int]bool)}
}

// ReadAt implements bitmap.Reader.
func (d *metaDisk) ReadAt(p []byte, offset int64) error {
	if copy(p, d.current[offset:]) < len(p) {
		return fmt.Errorf("read %d bytes at %d: beyond the end", len(p), offset)
	}
	return nil
}

func (d *metaDisk) write(p []byte, offset int64) {
	copy(d.current[offset:], p)
	d.changes[1]++
	first, end := int(offset/sector), int((offset+int64(len(p))+sector-1)/sector)
	content := append([]byte(nil), d.current[first*sector:min(end*sector, len(d.current))]...)
	for s := first; s < end; s++ {
		n := min(sector, len(content))
		if len(d.cache[s]) == 0 {
			d.cached = append(d.cached, s)
		}
		d.cache[s] = append(d.cache[s], content[:n:n])
		delete(d.doomed, s)
		content = content[n:]
	}
}

func (d *metaDisk) sync(fails bool) {
	kept := d.cached[:0]
	for _, s := range d.cached {
		if fails || d.doomed[s] {
			d.doomed[s] = true
			kept = append(kept, s)
			continue
		}
		c := d.cache[s]
		copy(d.durable[s*sector:], c[len(c)-1])
		delete(d.cache, s)
	}
	d.cached = kept
	d.changes[0]++
}

func (d *metaDisk) powerCut(s *store) {
	r := s.node.world.disks
	lose := r.Float64()
	for _, at := range d.cached {
		c := d.cache[at]
		kept := len(c) - 1
		for kept >= 0 && r.Float64() < lose {
			kept--
		}
		if kept >= 0 {
			copy(d.durable[at*sector:], c[kept])
		}
		copy(d.current[at*sector:min((at+1)*sector, len(d.current))], d.durable[at*sector:])
	}
	clear(d.cache)
	clear(d.doomed)
	d.cached = d.cached[:0]
	d.changes[0]++
	d.changes[1]++
}

// image is one of the two contents that a crash can leave at the extremes.
type image []byte

// ReadAt implements bitmap.Reader.
func (m image) ReadAt(p []byte, offset int64) error {
	copy(p, m[offset:])
	return nil
}
