// SPDX-License-Identifier: Apache-2.0

package bitmap

import (
	"fmt"
	"slices"
)

// Intents is the set of regions that may differ between the nodes though their
// blocks are not marked: those with writes that are not known to be durable on
// both. At most a limit of them is set, which bounds the resync after a crash.
// Finding a region takes one look into a table of 16 bits per region. Nothing
// allocates after NewIntents. An Intents belongs to one thread.
type Intents struct {
	layout  Layout
	table   []uint16 // by region: 1 + index into entries, or 0
	entries []Entry  // by slot; an Entry stays where it is while it is set
	free    []uint16 // slots that are not used
	order   []uint32 // the regions that are set, ascending
}

// Entry is one intent. Except for Region it belongs to the engine, which
// decides when the intent counts as durable and when it may go.
type Entry struct {
	Round       uint64 // flush round of the last write in the region
	Transaction uint64 // metadata transaction that makes the intent durable
	Region      uint32 // which; not to be changed
	InFlight    int32  // writes in the region that are not completed
}

// NewIntents returns an empty set. It takes 2 bytes per region and about 30
// per intent that may be set.
func NewIntents(l Layout) *Intents {
	in := &Intents{
		layout:  l,
		table:   make([]uint16, l.Regions()),
		entries: make([]Entry, l.intentLimit),
		free:    make([]uint16, l.intentLimit),
		order:   make([]uint32, 0, l.intentLimit),
	}
	for i := range in.free {
		in.free[i] = uint16(l.intentLimit - 1 - i) // the lowest slot goes first
	}
	return in
}

// Len is the number of intents that are set, Limit how many may be.
func (in *Intents) Len() int   { return len(in.order) }
func (in *Intents) Limit() int { return len(in.entries) }

// Find returns the intent of a region, or nil. The pointer is valid until the
// intent is removed.
func (in *Intents) Find(region uint32) *Entry {
	slot := in.table[region]
	if slot == 0 {
		return nil
	}
	return &in.entries[slot-1]
}

// Add sets the intent of a region that has none. The entry is all zero but for
// its region. It returns nil when the limit is reached.
func (in *Intents) Add(region uint32) *Entry {
	if in.table[region] != 0 {
		panic(fmt.Sprintf("bitmap: intent of region %d added twice", region))
	}
	if len(in.free) == 0 {
		return nil
	}
	slot := in.free[len(in.free)-1]
	in.free = in.free[:len(in.free)-1]
	in.table[region] = slot + 1
	at, _ := slices.BinarySearch(in.order, region)
	in.order = slices.Insert(in.order, at, region)
	in.entries[slot] = Entry{Region: region}
	return &in.entries[slot]
}

// Remove takes the intent of a region back. Its entry is gone.
func (in *Intents) Remove(region uint32) {
	slot := in.table[region]
	if slot == 0 {
		panic(fmt.Sprintf("bitmap: intent of region %d is not set", region))
	}
	if n := in.entries[slot-1].InFlight; n != 0 {
		panic(fmt.Sprintf("bitmap: intent of region %d removed with %d writes in flight", region, n))
	}
	in.table[region] = 0
	in.free = append(in.free, slot-1)
	at, _ := slices.BinarySearch(in.order, region)
	in.order = slices.Delete(in.order, at, at+1)
}

// Each calls f for every intent by ascending region until f returns false. f
// neither adds nor removes intents.
func (in *Intents) Each(f func(*Entry) bool) {
	for _, region := range in.order {
		if !f(&in.entries[in.table[region]-1]) {
			return
		}
	}
}

// Oldest appends to out, which is empty, up to n intents that have nothing in
// flight and are eligible: those with the lowest Round, coldest
// first, by region where rounds are equal. It does not allocate when out has
// room for n. A nil eligible takes all.
func (in *Intents) Oldest(n int, eligible func(*Entry) bool, out []*Entry) []*Entry {
	for _, region := range in.order {
		e := &in.entries[in.table[region]-1]
		full := len(out) >= n
		if e.InFlight != 0 || full && (n <= 0 || e.Round >= out[len(out)-1].Round) {
			continue
		}
		if eligible != nil && !eligible(e) {
			continue
		}
		if full {
			out = out[:len(out)-1]
		}
		at := len(out)
		for at > 0 && out[at-1].Round > e.Round {
			at--
		}
		out = slices.Insert(out, at, e)
	}
	return out
}
