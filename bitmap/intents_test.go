// SPDX-License-Identifier: Apache-2.0

package bitmap

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/twinbd/twinbd/internal/block"
)

func testLayout(t testing.TB, size int64, limit int) Layout {
	t.Helper()
	l, err := NewLayout(size, DefaultRegionSize, limit)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestIntentsModel holds Intents against a map, and what it encodes against
// what is decoded.
func TestIntentsModel(t *testing.T) {
	const limit = 12
	l := testLayout(t, 40<<20-1, limit)
	buf := make([]byte, l.IntentsSize())
	rapid.Check(t, func(t *rapid.T) {
		in := NewIntents(l)
		model := map[uint32]*Entry{}
		region := rapid.Uint32Range(0, uint32(l.Regions()-1))
		sequence := uint64(0)
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				r := region.Draw(t, "region")
				if model[r] != nil {
					t.Skip("set already")
				}
				e := in.Add(r)
				if (e == nil) != (len(model) == limit) {
					t.Fatalf("Add(%d) = %v with %d of %d set", r, e, len(model), limit)
				}
				if e == nil {
					return
				}
				if *e != (Entry{Region: r}) {
					t.Fatalf("new entry is %+v", *e)
				}
				e.Round = rapid.Uint64Range(0, 5).Draw(t, "round")
				model[r] = e
			},
			"remove": func(t *rapid.T) {
				r := region.Draw(t, "region")
				if model[r] == nil {
					t.Skip("not set")
				}
				in.Remove(r)
				delete(model, r)
			},
			"encode": func(t *rapid.T) {
				sequence++
				salt := rapid.Uint64().Draw(t, "salt")
				regions, got, err := DecodeIntents(in.Encode(buf, salt, sequence), l, salt)
				if err != nil || got != sequence || !slices.Equal(regions, slices.Sorted(maps.Keys(model))) {
					t.Fatalf("decoded %v, %d, %v; set are %v", regions, got, err, slices.Sorted(maps.Keys(model)))
				}
			},
			"": func(t *rapid.T) {
				if in.Len() != len(model) || in.Limit() != limit {
					t.Fatalf("Len = %d, Limit = %d, want %d, %d", in.Len(), in.Limit(), len(model), limit)
				}
				for r := range uint32(l.Regions()) {
					if in.Find(r) != model[r] {
						t.Fatalf("Find(%d) = %v, want %v", r, in.Find(r), model[r])
					}
				}
				var each []uint32
				in.Each(func(e *Entry) bool { each = append(each, e.Region); return true })
				if !slices.Equal(each, slices.Sorted(maps.Keys(model))) {
					t.Fatalf("Each gives %v", each)
				}
			},
		})
	})
}

// TestOldestModel holds Oldest against sorting all.
func TestOldestModel(t *testing.T) {
	l := testLayout(t, 100<<20, 50)
	rapid.Check(t, func(t *rapid.T) {
		in := NewIntents(l)
		var want []*Entry
		regions := rapid.SliceOfNDistinct(rapid.Uint32Range(0, 99), 0, 50, rapid.ID).Draw(t, "regions")
		for _, r := range regions {
			e := in.Add(r)
			e.Round = rapid.Uint64Range(0, 6).Draw(t, "round")
			e.InFlight = rapid.Int32Range(0, 1).Draw(t, "in flight")
			e.Transaction = rapid.Uint64Range(0, 2).Draw(t, "transaction")
			if e.InFlight == 0 && e.Transaction == 1 {
				want = append(want, e)
			}
		}
		slices.SortFunc(want, func(a, b *Entry) int {
			return cmp.Or(cmp.Compare(a.Round, b.Round), cmp.Compare(a.Region, b.Region))
		})
		n := rapid.IntRange(0, 12).Draw(t, "n")
		got := in.Oldest(n, func(e *Entry) bool { return e.Transaction == 1 }, nil)
		if !slices.Equal(got, want[:min(n, len(want))]) {
			t.Fatalf("Oldest(%d) = %v, want the first of %v", n, got, want)
		}
	})
}

func TestEachStops(t *testing.T) {
	in := NewIntents(testLayout(t, 10<<20, 10))
	in.Add(3)
	in.Add(1)
	calls := 0
	in.Each(func(e *Entry) bool { calls++; return false })
	if calls != 1 {
		t.Errorf("Each called %d times after false", calls)
	}
}

func TestIntentsMisusePanics(t *testing.T) {
	in := NewIntents(testLayout(t, 10<<20, 10))
	in.Add(1).InFlight = 1
	mustPanic(t, "adding twice", func() { in.Add(1) })
	mustPanic(t, "removing what is not set", func() { in.Remove(2) })
	mustPanic(t, "removing with a write in flight", func() { in.Remove(1) })
	mustPanic(t, "a region beyond the end", func() { in.Find(10) })
	if in.Len() != 1 {
		t.Errorf("%d intents after calls that panicked", in.Len())
	}
}

func TestEncodedLenIsTheUsedPrefix(t *testing.T) {
	l := testLayout(t, 8<<30, DefaultIntentLimit)
	in := NewIntents(l)
	for _, tt := range []struct{ intents, bytes int }{
		{0, 4096}, {1012, 4096}, {1013, 8192}, {DefaultIntentLimit, 20480},
	} {
		for in.Len() < tt.intents {
			in.Add(uint32(in.Len()))
		}
		if got := in.EncodedLen(); got != tt.bytes {
			t.Errorf("%d intents take %d bytes, want %d", tt.intents, got, tt.bytes)
		}
	}
	if l.IntentsSize() != in.EncodedLen() {
		t.Errorf("the slot has %d bytes, a full set takes %d", l.IntentsSize(), in.EncodedLen())
	}
}

// intentsImage is a slot with any payload and a right checksum.
func intentsImage(version uint32, payload []byte) []byte {
	b := make([]byte, roundUp(int64(block.SlotHeader+len(payload)), PageSize))
	return block.EncodeSlot(b, intentsMagic, version, 1, payload)
}

func TestDecodeIntentsRefuses(t *testing.T) {
	l := testLayout(t, 10<<20, 3)
	head := func(n byte) []byte { return []byte{0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, n, 0, 0, 0, 0} }
	tests := []struct {
		name    string
		version uint32
		payload []byte
		says    string
	}{
		{"newer version", 2, head(0), "newer twinbd"},
		{"version zero", 0, head(0), "version 0"},
		{"cut short", 1, head(0)[:15], "15 bytes"},
		{"other area", 1, make([]byte, 16), "another metadata area"},
		{"reserved byte", 1, append(head(0)[:15], 1), "reserved"},
		{"more than the limit", 1, append(head(4), make([]byte, 16)...), "at most 3"},
		{"fewer than it says", 1, append(head(2), 0, 0, 0, 1), "2 intents in 20 bytes"},
		{"more than it says", 1, append(head(0), 0, 0, 0, 1), "0 intents in 20 bytes"},
		{"beyond the end", 1, append(head(1), 0, 0, 0, 10), "not within 10"},
		{"descending", 1, append(head(2), 0, 0, 0, 2, 0, 0, 0, 1), "out of order"},
		{"twice", 1, append(head(2), 0, 0, 0, 2, 0, 0, 0, 2), "out of order"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := DecodeIntents(intentsImage(tt.version, tt.payload), l, 9)
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error is %v, want one about %q", err, tt.says)
			}
		})
	}
	if regions, _, err := DecodeIntents(intentsImage(1, append(head(1), 0, 0, 0, 9)), l, 9); err != nil || !slices.Equal(regions, []uint32{9}) {
		t.Errorf("a good slot gives %v, %v", regions, err)
	}
	if _, _, err := DecodeIntents(make([]byte, PageSize), l, 9); !errors.Is(err, block.ErrSlotEmpty) {
		t.Errorf("zeroes give %v", err)
	}
}

func TestIntentsDoNotAllocate(t *testing.T) {
	l := testLayout(t, 8<<30, DefaultIntentLimit)
	in := NewIntents(l)
	for r := range uint32(DefaultIntentLimit - 1) {
		in.Add(2 * r)
	}
	buf := make([]byte, l.IntentsSize())
	old := make([]*Entry, 0, 64)
	mustNotAllocate(t, "the life of an intent", func() {
		in.Add(1).Round = 5
		in.Find(1).InFlight++
		in.Find(1).InFlight--
		in.Each(func(*Entry) bool { return true })
		in.Oldest(64, func(e *Entry) bool { return e.Transaction == 0 }, old)
		in.Encode(buf, 1, 1)
		in.Remove(1)
	})
}

func fullIntents(b *testing.B) *Intents {
	in := NewIntents(testLayout(b, 1<<40, DefaultIntentLimit))
	for r := uint32(0); in.Len() < in.Limit(); r += 97 {
		in.Add(r).Round = uint64(r) * 7919 % 1000
	}
	b.ReportAllocs()
	return in
}

func BenchmarkFindIntent(b *testing.B) {
	in := fullIntents(b)
	for i := uint32(0); b.Loop(); i += 7919 {
		in.Find(i % (1 << 20))
	}
}

func BenchmarkAddAndRemoveIntent(b *testing.B) {
	in := fullIntents(b)
	in.Remove(97 * 50)
	for b.Loop() {
		in.Add(1)
		in.Remove(1)
	}
}

func BenchmarkEncodeIntents(b *testing.B) {
	in := fullIntents(b)
	buf := make([]byte, in.EncodedLen())
	for b.Loop() {
		in.Encode(buf, 1, 1)
	}
}

func BenchmarkOldest64(b *testing.B) {
	in := fullIntents(b)
	out := make([]*Entry, 0, 64)
	for b.Loop() {
		in.Oldest(64, nil, out)
	}
}
