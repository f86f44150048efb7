// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"github.com/twinbd/twinbd/bitmap"
)

// evictBatch is how many cold intents are cleared at once when there is no
// free one, so that one metadata flush makes room for many.
const evictBatch = 64

// intend is rule 1, the only place of it: no byte of a change reaches either
// disk before the intents of its regions are durable here. An op whose intents
// are durable already goes on in the same call.
//
// A disk that has failed gets no more bytes, so it needs no more intents. Those
// that it has stay on it for good: they say what it may lack should it return.
func (e *Engine) intend(o *op) {
	if e.local == diskFailed {
		e.run = append(e.run, o)
		return
	}
	if e.marks.starved.length > 0 || !e.claim(o) { // nobody overtakes the starved
		e.marks.starved.push(o)
		return
	}
	if o.txn > e.meta.done && !mutated("intent before data") {
		e.marks.waiting.push(o)
		return
	}
	e.run = append(e.run, o)
}

// claim sets the intents of o's regions where they are not set, and counts o
// as in flight in each. It returns false, with nothing counted, when there is
// no free intent.
func (e *Engine) claim(o *op) bool {
	first, last := e.regionsOf(o)
	for r := first; r <= last; r++ {
		if e.marks.intents.Find(r) != nil {
			continue
		}
		entry := e.marks.intents.Add(r)
		if entry == nil {
			if e.evict(first, last) == 0 {
				return false
			}
			entry = e.marks.intents.Add(r)
		}
		entry.Transaction = e.meta.wantIntents()
	}
	for r := first; r <= last; r++ {
		entry := e.marks.intents.Find(r)
		entry.InFlight++
		o.txn = max(o.txn, entry.Transaction)
	}
	o.claimed = true
	return true
}

// regionsOf are the regions that a change touches.
func (e *Engine) regionsOf(o *op) (first, last uint32) {
	first, last = e.meta.layout.RegionsOf(o.offset, o.length)
	if mutated("an intent for each region") {
		last = first
	}
	return first, last
}

// dropIntents says that o is no longer in flight in its regions. The intents
// stay until both disks were flushed after it.
func (e *Engine) dropIntents(o *op) {
	if !o.claimed {
		return
	}
	o.claimed = false
	first, last := e.regionsOf(o)
	for r := first; r <= last; r++ {
		entry := e.marks.intents.Find(r)
		entry.InFlight--
		entry.Round = e.rounds.next
	}
	e.marks.retry = e.marks.starved.length > 0
}

// evict clears the coldest intents that may go (rule 5): nothing in flight,
// both disks flushed since, and the dirty bits of the region durable. Those of
// regions keepFirst to keepLast stay. When none may go yet it starts what they
// wait for. It returns how many went.
func (e *Engine) evict(keepFirst, keepLast uint32) int {
	m := &e.marks
	flush, save := false, false
	m.cold = m.intents.Oldest(evictBatch, func(i *bitmap.Entry) bool {
		return i.Region < keepFirst || i.Region > keepLast
	}, m.cold[:0])
	gone := 0
	for _, i := range m.cold {
		switch {
		case i.Round > e.rounds.completed && !mutated("an intent goes after a flush of both"):
			flush = true
		case !mutated("an intent goes when its bits are durable") && !e.meta.bitsDurable(i.Region):
			save = true
		default:
			m.intents.Remove(i.Region)
			gone++
		}
	}
	if gone > 0 {
		e.meta.wantIntents()
		return gone
	}
	if flush {
		e.rounds.want(e)
	}
	if save {
		e.meta.start()
	}
	return 0
}

// retryIntents lets ops that found no free intent try again.
func (e *Engine) retryIntents() {
	e.marks.retry = false
	starved := e.marks.starved.take()
	for o := starved.pop(); o != nil; o = starved.pop() {
		if e.marks.starved.length > 0 { // keep their order
			e.marks.starved.push(o)
			continue
		}
		e.intend(o)
	}
}

// intentsDurable lets ops go on whose intents a finished transaction holds.
func (e *Engine) intentsDurable() {
	for o := e.marks.waiting.first; o != nil && o.txn <= e.meta.done; o = e.marks.waiting.first {
		e.marks.waiting.pop()
		e.run = append(e.run, o)
	}
}
