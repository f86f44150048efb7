// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// naive is the lock table said plainly: a lock is free when no lock that was
// asked for earlier conflicts with it.
type naive []*lock

func (n naive) free(l *lock) bool {
	for _, o := range n {
		if o == l {
			return true
		}
		if o.start < l.end && l.start < o.end && !(o.shared && l.shared) {
			return false
		}
	}
	panic("not asked for")
}

// TestLocksAgainstNaive compares the table with the plain one.
func TestLocksAgainstNaive(t *testing.T) {
	var table lockTable
	rapid.Check(t, func(t *rapid.T) {
		table = lockTable{}
		table.init()
		var all naive
		told := map[*lock]bool{} // told that it is free
		release := func(l *lock) {
			var freed []*lock
			if told[l] {
				freed = table.release(l, nil)
			} else {
				freed = table.abandon(l, nil)
			}
			all = slices.DeleteFunc(all, func(o *lock) bool { return o == l })
			delete(told, l)
			for _, o := range freed {
				if told[o] {
					t.Fatalf("lock %d-%d is told twice", o.start, o.end)
				}
				told[o] = true
			}
		}
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			if len(all) > 0 && rapid.IntRange(0, 2).Draw(t, "what") == 0 {
				release(all[rapid.IntRange(0, len(all)-1).Draw(t, "which")])
			} else {
				l := drawLock(t)
				all = append(all, l)
				told[l] = table.acquire(l)
			}
			for _, l := range all {
				if all.free(l) != told[l] {
					t.Fatalf("lock %d-%d shared=%t: free is %t, its owner was told %t", l.start, l.end, l.shared, all.free(l), told[l])
				}
			}
			if table.all != len(all) {
				t.Fatalf("table holds %d locks, there are %d", table.all, len(all))
			}
		}
		for len(all) > 0 {
			release(all[0])
		}
		if table.all != 0 || table.narrow != 0 {
			t.Fatalf("left: %d locks, %d narrow", table.all, table.narrow)
		}
	})
}

// drawLock draws ranges around the borders of buckets: within one, across two,
// across many, and a whole turn of the table apart.
func drawLock(t *rapid.T) *lock {
	const region = 1 << lockShift
	at := rapid.SampledFrom([]int64{0, region, 2 * region, 3 * region, lockBuckets * region, (lockBuckets + 1) * region}).Draw(t, "region")
	start := max(0, at+rapid.Int64Range(-3, 3).Draw(t, "start"))
	length := rapid.SampledFrom([]int64{1, 2, 5, region - 1, region, region + 2, 3 * region, lockBuckets * region, (lockBuckets + 2) * region}).Draw(t, "length")
	return &lock{start: start, end: start + length, shared: rapid.Bool().Draw(t, "shared")}
}
