// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"testing"
	"time"

	"github.com/twinbd/twinbd/internal/block"
)

// TestBacklogFollowsRounds: what may be there is what the last round that says
// something about the disks would flush in a second.
func TestBacklogFollowsRounds(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		name   string
		limit  int64 // MiB, before
		cost   int64 // MiB, of the round
		took   time.Duration
		zeroes int64
		want   int64 // MiB, after
	}{
		{"full and at once", 16, 8, 0, 0, 32},
		{"full and quick", 64, 32, 50 * time.Millisecond, 0, 128},
		{"full, and as quick as wanted", 64, 32, 500 * time.Millisecond, 0, 64},
		{"full, and nearly as quick", 100, 50, 400 * time.Millisecond, 0, 125},
		{"more than full, and quick", 100, 90, 600 * time.Millisecond, 0, 150},
		{"full and slow", 1000, 500, 2500 * time.Millisecond, 0, 200},
		{"full and so slow that it was nearly lost", 1000, 500, 4900 * time.Millisecond, 0, 102},
		{"slower than the least", 16, 8, 4 * time.Second, 0, 16},
		{"small and quick", 64, 31, time.Millisecond, 0, 64},
		{"small, and quick for a flush", 64, 1, 20 * time.Millisecond, 0, 64},
		{"small and slow", 64, 24, 600 * time.Millisecond, 0, 40},
		{"small, and the disk was busy with something else", 64, 1, 2 * time.Second, 0, 16},
		{"with zeroes, and quick", 64, 32, time.Millisecond, 1, 64},
		{"with zeroes, and slow", 64, 32, time.Second, 1, 32},
		{"as much as there can be", 33792, 33792, time.Millisecond, 0, 33792},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b backlog
			cfg := Config{}.withDefaults()
			b.init(&cfg)
			b.limit = c.limit * mib
			b.open = work{c.cost * mib, c.cost * mib, c.zeroes}
			b.flushing()
			b.flushed(c.took)
			if got := b.limit / mib; got != c.want {
				t.Errorf("%d MiB, want %d", got, c.want)
			}
			if b.closing != (work{}) || b.open != (work{}) {
				t.Errorf("%+v and %+v are left", b.closing, b.open)
			}
		})
	}
}

// TestBacklogTakesRoundsTogether: a round that finds nothing to do, because the
// flush before took that too, is not quick.
func TestBacklogTakesRoundsTogether(t *testing.T) {
	var b backlog
	cfg := Config{}.withDefaults()
	b.init(&cfg)
	b.limit = 64 << 20
	for i := range 20 {
		b.open = work{bytes: 32 << 20, cost: 32 << 20}
		b.flushing()
		b.flushed([...]time.Duration{2 * time.Second, 0}[i%2])
		if i > 0 && b.limit != 32<<20 {
			t.Fatalf("after round %d: %d MiB, want what two flush in a second", i, b.limit>>20)
		}
	}
}

// TestBacklogCost: scattered changes count for more, up to the bytes that are
// allowed to whatever disk.
func TestBacklogCost(t *testing.T) {
	for _, c := range []struct {
		name         string
		op           block.Op
		length, step int64
		quick        bool
		want         int64 // changes that find room
	}{
		{"in sequence", block.Write, 1 << 20, 1 << 20, false, 16},
		{"in sequence, quick", block.Write, 1 << 20, 1 << 20, true, 1024},
		{"scattered", block.Write, 4 << 10, 16 << 10, false, 126},
		{"scattered, quick", block.Write, 4 << 10, 16 << 10, true, 256 << 10},
		{"zeroes", block.WriteZeroes, 32 << 20, 32 << 20, false, 1}, // one, however long
	} {
		t.Run(c.name, func(t *testing.T) {
			var b backlog
			cfg := Config{}.withDefaults()
			b.init(&cfg)
			if c.quick {
				b.limit = b.ceiling()
			}
			n := int64(0)
			for ; b.room(); n++ {
				o := &op{kind: c.op, offset: n * c.step, length: c.length}
				b.begin(o)
				if n%2 == 0 {
					b.taken(o)
				}
			}
			if n != c.want {
				t.Errorf("%d found room, want %d", n, c.want)
			}
		})
	}
}
