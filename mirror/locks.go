// SPDX-License-Identifier: Apache-2.0

package mirror

import "fmt"

// Range locks (rule 7). Whoever changes a range holds it alone; readers share
// it. A lock waits for every overlapping lock that was asked for earlier, so
// overlapping requests run in the order of their arrival, on both disks, and
// nobody starves. Instead of a queue per range each lock counts the earlier
// ones that it waits for; a release counts down those that came later.
//
// Locks hang in buckets by region so that a look-up meets only neighbours. A
// lock that spans two regions hangs in both, and a pair that meets in both is
// counted in the region in which their overlap begins. Wider ones hang in one
// list of their own.

// lock is a range somebody holds or waits for. It is embedded in its owner.
type lock struct {
	start, end int64 // bytes
	shared     bool
	held       bool // in the table
	waits      int  // earlier overlapping locks
	ticket     uint64
	node       [2]lockNode // in the bucket of the first and the last region
	owner      locker
}

// locker is told that its lock waits for nobody any more.
type locker interface{ locked() }

type lockNode struct {
	lock       *lock
	prev, next *lockNode
}

const (
	lockShift   = 20 // 1 MiB: the width of a bucket
	lockBuckets = 1 << 10
)

type lockTable struct {
	buckets [lockBuckets]lockNode // list heads
	wide    lockNode              // locks that touch more than two regions
	all     int
	narrow  int
	ticket  uint64
}

func (t *lockTable) init() {
	for i := range t.buckets {
		head := &t.buckets[i]
		head.prev, head.next = head, head
	}
	t.wide.prev, t.wide.next = &t.wide, &t.wide
}

func lockRegion(offset int64) int64 { return offset >> lockShift }

func (t *lockTable) bucket(region int64) *lockNode { return &t.buckets[region&(lockBuckets-1)] }

func (l *lock) isWide() bool { return lockRegion(l.end-1)-lockRegion(l.start) > 1 }

func (l *lock) meets(o *lock) bool {
	if mutated("overlapping requests are ordered") || l.shared != o.shared && mutated("a read waits for writes in flight") {
		return false
	}
	return l.start < o.end && o.start < l.end && !(l.shared && o.shared)
}

// acquire puts l into the table and reports whether it is free to go on at
// once; otherwise its owner is told later. l.start < l.end.
func (t *lockTable) acquire(l *lock) bool {
	if l.held || l.start >= l.end {
		panic(fmt.Sprintf("mirror: lock %d-%d held=%t", l.start, l.end, l.held))
	}
	t.ticket++
	l.held, l.waits, l.ticket = true, 0, t.ticket
	t.eachMeeting(l, func(o *lock) { l.waits++ })
	t.insert(l)
	return l.waits == 0
}

// release takes l out and appends to free those that now wait for nobody. The
// caller tells them when its own work is done.
func (t *lockTable) release(l *lock, free []*lock) []*lock {
	if !l.held || l.waits != 0 {
		panic(fmt.Sprintf("mirror: release of lock %d-%d held=%t waits=%d", l.start, l.end, l.held, l.waits))
	}
	t.remove(l)
	l.held = false
	t.eachMeeting(l, func(o *lock) {
		if o.ticket < l.ticket {
			return // a reader beside us, or nobody
		}
		if o.waits--; o.waits == 0 {
			free = append(free, o)
		}
	})
	return free
}

// abandon takes l out while it waits.
func (t *lockTable) abandon(l *lock, free []*lock) []*lock {
	l.waits = 0
	return t.release(l, free)
}

// eachMeeting calls f once for every lock in the table that l conflicts with.
func (t *lockTable) eachMeeting(l *lock, f func(*lock)) {
	for n := t.wide.next; n != &t.wide; n = n.next {
		if n.lock.meets(l) {
			f(n.lock)
		}
	}
	if t.narrow == 0 {
		return
	}
	first, last := lockRegion(l.start), lockRegion(l.end-1)
	if last-first >= lockBuckets {
		last = first + lockBuckets - 1 // every bucket once
	}
	for region := first; region <= last; region++ {
		head := t.bucket(region)
		for n := head.next; n != head; n = n.next {
			o := n.lock
			if !o.meets(l) {
				continue
			}
			if begin := lockRegion(max(l.start, o.start)); t.bucket(begin) == head && n == o.nodeIn(begin) {
				f(o)
			}
		}
	}
}

// nodeIn is the node of a narrow lock that hangs in region's bucket.
func (l *lock) nodeIn(region int64) *lockNode {
	if region == lockRegion(l.start) {
		return &l.node[0]
	}
	return &l.node[1]
}

func (t *lockTable) insert(l *lock) {
	t.all++
	if l.isWide() {
		link(&t.wide, &l.node[0], l)
		return
	}
	t.narrow++
	first, last := lockRegion(l.start), lockRegion(l.end-1)
	link(t.bucket(first), &l.node[0], l)
	if last != first {
		link(t.bucket(last), &l.node[1], l)
	}
}

func (t *lockTable) remove(l *lock) {
	t.all--
	if !l.isWide() {
		t.narrow--
	}
	for i := range l.node {
		if n := &l.node[i]; n.lock != nil {
			n.prev.next, n.next.prev = n.next, n.prev
			*n = lockNode{}
		}
	}
}

func link(head, n *lockNode, l *lock) {
	n.lock, n.prev, n.next = l, head.prev, head
	head.prev.next, head.prev = n, n
}
