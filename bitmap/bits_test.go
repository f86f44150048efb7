// SPDX-License-Identifier: Apache-2.0

package bitmap

import (
	"runtime"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/twinbd/twinbd/internal/block"
)

func TestSetBytesRoundsOutwardsClearBytesInwards(t *testing.T) {
	const size = 10*block.Size + 100 // the last block, 10, has 100 bytes
	tests := []struct {
		name           string
		offset, length int64
		set            []Run // from an empty set
		left           []Run // from a full set
	}{
		{"nothing", 5000, 0, nil, []Run{{0, 11}}},
		{"nothing at the end", size, 0, nil, []Run{{0, 11}}},
		{"one byte", 5000, 1, []Run{{1, 1}}, []Run{{0, 11}}},
		{"one block", 4096, 4096, []Run{{1, 1}}, []Run{{0, 1}, {2, 9}}},
		{"all but a byte of a block", 4096, 4095, []Run{{1, 1}}, []Run{{0, 11}}},
		{"a byte each of two blocks", 8191, 2, []Run{{1, 2}}, []Run{{0, 11}}},
		{"a block and a byte on either side", 4095, 4098, []Run{{0, 3}}, []Run{{0, 1}, {2, 9}}},
		{"the short block", 40960, 100, []Run{{10, 1}}, []Run{{0, 10}}},
		{"a byte less than the short block", 40960, 99, []Run{{10, 1}}, []Run{{0, 11}}},
		{"the end of the short block", 40961, 99, []Run{{10, 1}}, []Run{{0, 11}}},
		{"into the short block", 36864, 4097, []Run{{9, 2}}, []Run{{0, 9}, {10, 1}}},
		{"everything", 0, size, []Run{{0, 11}}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			empty, full := NewBits(size), NewBits(size)
			full.Set(0, 11)
			added := empty.SetBytes(tt.offset, tt.length)
			removed := full.ClearBytes(tt.offset, tt.length)
			if got := runsOf(empty); !slices.Equal(got, tt.set) || added != empty.Count() {
				t.Errorf("SetBytes gives %v (added %d, count %d), want %v", got, added, empty.Count(), tt.set)
			}
			if got := runsOf(full); !slices.Equal(got, tt.left) || removed != 11-full.Count() {
				t.Errorf("ClearBytes leaves %v (removed %d, count %d), want %v", got, removed, full.Count(), tt.left)
			}
		})
	}
}

// TestBitsModel holds Bits against a plain slice, over ranges that cross words
// and pages, and a volume whose last page and block are short.
func TestBitsModel(t *testing.T) {
	const blocks = 2*PageBlocks + 1000
	rapid.Check(t, func(t *rapid.T) {
		b := NewBits((blocks-1)*block.Size + 1)
		model := make([]bool, blocks)
		span := rapid.Custom(func(t *rapid.T) Run {
			near := rapid.SampledFrom([]int64{0, 64, PageBlocks, 2 * PageBlocks, blocks, rapid.Int64Range(0, blocks).Draw(t, "anywhere")}).Draw(t, "near")
			first := min(max(near+rapid.Int64Range(-70, 70).Draw(t, "shift"), 0), blocks)
			most := rapid.SampledFrom([]int64{1, 200, blocks}).Draw(t, "most")
			return Run{first, rapid.Int64Range(0, min(most, blocks-first)).Draw(t, "count")}
		})
		fill := func(r Run, to bool) (changed int64) {
			for i := r.First; i < r.First+r.Count; i++ {
				if model[i] != to {
					model[i], changed = to, changed+1
				}
			}
			return changed
		}
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				r := span.Draw(t, "run")
				if got, want := b.Set(r.First, r.Count), fill(r, true); got != want {
					t.Fatalf("Set%v added %d, want %d", r, got, want)
				}
			},
			"clear": func(t *rapid.T) {
				r := span.Draw(t, "run")
				if got, want := b.Clear(r.First, r.Count), fill(r, false); got != want {
					t.Fatalf("Clear%v removed %d, want %d", r, got, want)
				}
			},
			"look": func(t *rapid.T) {
				r := span.Draw(t, "run")
				part := model[r.First : r.First+r.Count]
				if got, want := b.Any(r.First, r.Count), slices.Contains(part, true); got != want {
					t.Fatalf("Any%v = %v", r, got)
				}
				if got, want := b.Full(r.First, r.Count), !slices.Contains(part, false); got != want {
					t.Fatalf("Full%v = %v", r, got)
				}
				most := max(r.Count, 1)
				wantFirst, wantCount := modelNext(model, r.First, most)
				first, count, ok := b.Next(r.First, most)
				if ok != (wantCount > 0) || ok && (first != wantFirst || count != wantCount) {
					t.Fatalf("Next(%d, %d) = %d, %d, %v, want %d, %d", r.First, most, first, count, ok, wantFirst, wantCount)
				}
			},
			"": func(t *rapid.T) {
				count := int64(0)
				for _, set := range model {
					if set {
						count++
					}
				}
				if b.Count() != count {
					t.Fatalf("Count = %d, want %d", b.Count(), count)
				}
			},
		})
	})
}

func modelNext(model []bool, from, most int64) (first, count int64) {
	for first = from; first < int64(len(model)) && !model[first]; first++ {
	}
	for count < most && first+count < int64(len(model)) && model[first+count] {
		count++
	}
	return first, count
}

func TestUnionIsAllOrNothing(t *testing.T) {
	b := NewBits(100 * block.Size)
	b.Set(5, 10)
	for _, bad := range []Run{{-1, 1}, {0, -1}, {0, 101}, {100, 1}, {99, 2}, {1 << 62, 1 << 62}} {
		if n, err := b.Union([]Run{{50, 10}, bad}); err == nil || n != 0 || b.Count() != 10 {
			t.Errorf("Union with %v: %d, %v, %d set", bad, n, err, b.Count())
		}
	}
	added, err := b.Union([]Run{{0, 10}, {99, 1}, {100, 0}})
	if want := []Run{{0, 15}, {99, 1}}; err != nil || added != 6 || !slices.Equal(runsOf(b), want) {
		t.Errorf("Union added %d, %v: %v, want %v", added, err, runsOf(b), want)
	}
}

func TestBitsOutsideTheVolumePanic(t *testing.T) {
	b := NewBits(100 * block.Size)
	for name, f := range map[string]func(){
		"set before":      func() { b.Set(-1, 1) },
		"set beyond":      func() { b.Set(99, 2) },
		"set overflow":    func() { b.Set(1<<62, 1<<62) },
		"clear beyond":    func() { b.Clear(100, 1) },
		"any beyond":      func() { b.Any(0, 101) },
		"full negative":   func() { b.Full(0, -1) },
		"next beyond":     func() { b.Next(101, 1) },
		"next of nothing": func() { b.Next(0, 0) },
		"bytes before":    func() { b.SetBytes(-1, 1) },
		"bytes beyond":    func() { b.ClearBytes(99*block.Size, block.Size+1) },
		"no size":         func() { NewBits(0) },
		"too large":       func() { NewBits(MaxSize + 1) },
	} {
		mustPanic(t, name, f)
	}
	if b.Count() != 0 {
		t.Errorf("%d blocks set by calls that panicked", b.Count())
	}
}

// TestMemoryOfOneTebibyte holds the promise on the cost of a 1 TiB volume.
func TestMemoryOfOneTebibyte(t *testing.T) {
	const most = 36 << 20
	l, err := NewLayout(1<<40, DefaultRegionSize, DefaultIntentLimit)
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	b, in := NewBits(l.Size()), NewIntents(l)
	runtime.ReadMemStats(&after)
	got := after.TotalAlloc - before.TotalAlloc
	t.Logf("bits and intents of 1 TiB: %.2f MiB", float64(got)/(1<<20))
	if got > most || got < 1<<40/block.Size/8 {
		t.Errorf("bits and intents of 1 TiB take %d bytes, at most %d are allowed", got, most)
	}
	runtime.KeepAlive(b)
	runtime.KeepAlive(in)
}

func TestBitsDoNotAllocate(t *testing.T) {
	b := NewBits(10 << 30)
	page := make([]byte, PageSize)
	mustNotAllocate(t, "marking and finding", func() {
		b.SetBytes(5<<30, 1<<20)
		b.Any(0, 1000)
		b.Next(0, 256)
		b.ClearBytes(5<<30, 1<<20)
	})
	mustNotAllocate(t, "saving", func() {
		b.Set(b.PageRun(3).First, 1)
		p, _ := b.NextUnsaved(0)
		b.EncodePage(p, 1, page)
		b.Unsave(p)
	})
}

const tebibyte = 1 << 40

func BenchmarkSet(b *testing.B) {
	bits := NewBits(tebibyte)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		bits.SetBytes(int64(i)*7919*block.Size%tebibyte, block.Size)
	}
}

func BenchmarkSetAndClear1MiB(b *testing.B) {
	bits := NewBits(tebibyte)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		offset := int64(i) << 20 % tebibyte
		bits.SetBytes(offset, 1<<20)
		bits.ClearBytes(offset, 1<<20)
	}
}

// BenchmarkNextOverEmptySpace finds one block at the end of 1 TiB.
func BenchmarkNextOverEmptySpace(b *testing.B) {
	bits := NewBits(tebibyte)
	bits.Set(bits.Blocks()-1, 1)
	b.ReportAllocs()
	for b.Loop() {
		bits.Next(0, 256)
	}
}

// BenchmarkNextDense walks over every second block of a page.
func BenchmarkNextDense(b *testing.B) {
	bits := NewBits(tebibyte)
	for i := int64(0); i < PageBlocks; i += 2 {
		bits.Set(i, 1)
	}
	b.ReportAllocs()
	from := int64(0)
	for b.Loop() {
		first, count, ok := bits.Next(from, 256)
		if from = first + count; !ok {
			from = 0
		}
	}
}
