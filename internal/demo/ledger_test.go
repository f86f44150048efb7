// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"strings"
	"testing"

	"github.com/twinbd/twinbd/internal/block"
)

// disk is what the ledger of a test writes to.
type disk []byte

func (d disk) ReadAt(p []byte, offset int64) error {
	copy(p, d[offset:])
	return nil
}

// write does what a writer does, as far as it comes.
func write(g *ledger, d disk, index int, reaches, acknowledged bool) {
	content := make([]byte, block.Size)
	g.begin(index, content)
	if reaches {
		copy(d[g.at(index):], content)
	}
	if acknowledged {
		g.end(index)
	}
}

// The ledger must tell a disk that has every acknowledged write from one that
// has not: the whole demo rests on it.
func TestLedger(t *testing.T) {
	const lost, kept = false, true
	for _, test := range []struct {
		name                   string
		damage                 func(g *ledger, d disk)
		acknowledged, underWay int
		err                    string
	}{
		{name: "all there", damage: func(*ledger, disk) {}, acknowledged: 4},
		{name: "under way, arrived", damage: func(g *ledger, d disk) { write(g, d, 2, kept, false) }, acknowledged: 3, underWay: 1},
		{name: "under way, lost", damage: func(g *ledger, d disk) { write(g, d, 2, lost, false) }, acknowledged: 4},
		{name: "never acknowledged, arrived", damage: func(g *ledger, d disk) { write(g, d, 5, kept, false) }, acknowledged: 4, underWay: 1},
		{name: "acknowledged, lost", damage: func(g *ledger, d disk) { write(g, d, 2, lost, kept) },
			err: "write 5 was acknowledged, the block holds write 3"},
		{name: "first write lost", damage: func(g *ledger, d disk) { write(g, d, 6, lost, kept) },
			err: "write 5 was acknowledged, the block holds write 0"},
		{name: "torn", damage: func(g *ledger, d disk) { clear(d[g.at(2)+2048 : g.at(3)]) }, err: "write 3 is not whole"},
		{name: "in the wrong block", damage: func(g *ledger, d disk) { copy(d[g.at(1):g.at(2)], d[g.at(2):]) },
			err: "write 2 was acknowledged, the block holds write 3"},
		{name: "data where none was written", damage: func(g *ledger, d disk) { d[g.at(6)+9] = 1 }, err: "write 0 is not whole"},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := layout{size: 10 * block.Size, image: 2 * block.Size, ledger: 8 * block.Size}
			g, d := newLedger(l), make(disk, l.size)
			for index := range 4 {
				write(g, d, index, true, true)
			}
			test.damage(g, d)
			acknowledged, underWay, err := g.verify(d)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Fatalf("verify says %v, want %q", err, test.err)
				}
				return
			}
			if err != nil || acknowledged != test.acknowledged || underWay != test.underWay {
				t.Fatalf("verify finds %d acknowledged, %d under way, error %v; want %d, %d", acknowledged, underWay, err, test.acknowledged, test.underWay)
			}
			// What was read stays: a second look finds it acknowledged.
			if acknowledged, underWay, err = g.verify(d); err != nil || acknowledged != test.acknowledged+test.underWay || underWay != 0 {
				t.Fatalf("second verify finds %d acknowledged, %d under way, error %v", acknowledged, underWay, err)
			}
		})
	}
}

func TestLedgerCounts(t *testing.T) {
	l := layout{size: 8 * block.Size, ledger: 8 * block.Size}
	g, d := newLedger(l), make(disk, l.size)
	write(g, d, 0, true, true)
	g.mark()
	for range 3 {
		write(g, d, 0, true, true)
		write(g, d, 1, true, true)
	}
	write(g, d, 2, true, false)
	if writes, blocks := g.counted(); writes != 6 || blocks != 2 {
		t.Fatalf("counted %d writes to %d blocks since mark, want 6 to 2", writes, blocks)
	}
}
