// SPDX-License-Identifier: Apache-2.0

package block_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/internal/block/blocktest"
)

func TestPartKeepsDisksContract(t *testing.T) {
	blocktest.Contract(t, func(t testing.TB) block.Disk {
		whole := blocktest.NewMemory(3 << 20)
		p, err := block.Part(whole, 4096, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		return p
	})
}

func TestPartStaysWithinItself(t *testing.T) {
	whole := blocktest.NewMemory(64 << 10)
	p, err := block.Part(whole, 16<<10, 16<<10)
	if err != nil {
		t.Fatal(err)
	}
	ones := bytes.Repeat([]byte{1}, 16<<10)
	if err := p.WriteAt(ones, 0); err != nil {
		t.Fatal(err)
	}
	for _, offset := range []int64{-1, 1, 16 << 10} {
		if err := p.WriteAt(ones, offset); err == nil {
			t.Errorf("a write of all its length at %d is taken", offset)
		}
	}
	got := whole.Snapshot()
	want := slices.Concat(make([]byte, 16<<10), ones, make([]byte, 32<<10))
	if !bytes.Equal(got, want) {
		t.Error("the part reached beyond itself")
	}
	if _, err := block.Part(whole, 60<<10, 8<<10); err == nil {
		t.Error("a part longer than the disk is made")
	}
}

func TestAllocation(t *testing.T) {
	d := blocktest.NewMemory(64 << 10)
	if err := d.WriteAt(bytes.Repeat([]byte{1}, 8<<10), 16<<10); err != nil {
		t.Fatal(err)
	}
	hole := block.ExtentHole | block.ExtentZero
	for _, c := range []struct {
		name           string
		offset, length int64
		room           int
		want           []block.Extent
	}{
		{"all", 0, 64 << 10, 8, []block.Extent{{Length: 16 << 10, Flags: hole}, {Length: 8 << 10}, {Length: 40 << 10, Flags: hole}}},
		{"inside the data", 18 << 10, 4 << 10, 8, []block.Extent{{Length: 4 << 10}}},
		{"room for one", 0, 64 << 10, 1, []block.Extent{{Length: 16 << 10, Flags: hole}}},
	} {
		got, err := block.Allocation(make([]block.Extent, 0, c.room), d, c.offset, c.length)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v %v, want %v", c.name, got, err, c.want)
		}
	}
	if !block.IsHole(d, 0, 16<<10) || block.IsHole(d, 0, 20<<10) || block.IsHole(d, 16<<10, 4096) {
		t.Error("IsHole is wrong")
	}
}
