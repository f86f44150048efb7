// SPDX-License-Identifier: Apache-2.0

package bitmap

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/twinbd/twinbd/internal/block"
)

// usedArea is an area with dirty blocks in two of its three pages, intents,
// and a header that was written after formatting.
func usedArea(t testing.TB) *area {
	t.Helper()
	h := testHeader()
	a := newArea(t, h)
	l, err := h.Layout()
	if err != nil {
		t.Fatal(err)
	}
	b := NewBits(h.Size)
	b.Set(100, 20)
	b.Set(PageBlocks+5, 1)
	a.write(pageWrite(l, b, 0, h.Salt))
	a.write(pageWrite(l, b, 1, h.Salt))
	in := NewIntents(l)
	for _, region := range []uint32{7, 3, 299} {
		in.Add(region)
	}
	a.write(intentsWrite(l, in, h.Salt, 3))
	h.ResyncID++
	a.write(headerWrite(t, h, 3))
	return a
}

var usedRuns = []Run{{100, 20}, {PageBlocks + 5, 1}}

func TestLoad(t *testing.T) {
	fresh := newArea(t, testHeader()).load(t)
	if fresh.Header != testHeader() || fresh.Sequence != FormatSequence || fresh.IntentsSequence != FormatSequence {
		t.Errorf("formatted: header %+v, sequences %d, %d", fresh.Header, fresh.Sequence, fresh.IntentsSequence)
	}
	if fresh.Bits.Count() != 0 || fresh.Bits.Unsaved() != 0 || len(fresh.Regions) != 0 || fresh.BadPages != nil || fresh.IntentsLost {
		t.Errorf("formatted: %d dirty, %d unsaved, regions %v, bad pages %v", fresh.Bits.Count(), fresh.Bits.Unsaved(), fresh.Regions, fresh.BadPages)
	}
	used := usedArea(t).load(t)
	if used.Header.ResyncID != testHeader().ResyncID+1 || used.Sequence != 3 || used.IntentsSequence != 3 {
		t.Errorf("used: resync %d, sequences %d, %d", used.Header.ResyncID, used.Sequence, used.IntentsSequence)
	}
	if !slices.Equal(runsOf(used.Bits), usedRuns) || !slices.Equal(used.Regions, []uint32{3, 7, 299}) {
		t.Errorf("used: dirty %v, regions %v", runsOf(used.Bits), used.Regions)
	}
	if used.HeaderErrors != [2]error{} || used.IntentsErrors != [2]error{} {
		t.Errorf("used: %v, %v", used.HeaderErrors, used.IntentsErrors)
	}
}

func TestLoadRefuses(t *testing.T) {
	newer := func(a *area, sequence uint64) {
		copy(a.data[HeaderOffset(sequence):], headerImage(2, sequence, payloadOf(t, testHeader())))
	}
	tests := []struct {
		name   string
		damage func(a *area)
		is     error
		says   string
	}{
		{"nothing at all", func(a *area) { a.data = nil }, nil,
			"metadata is cut short: 0 bytes do not hold both headers"},
		{"within the second header", func(a *area) { a.data = a.data[:64<<10+4095] }, nil,
			"metadata is cut short: 69631 bytes do not hold both headers"},
		{"after the second header", func(a *area) { a.data = a.data[:64<<10+4096] }, nil,
			"metadata is cut short: it has 69632 bytes, a volume of 314572800 bytes needs 274432"},
		{"a byte short", func(a *area) { a.data = a.data[:len(a.data)-1] }, nil,
			"metadata is cut short: it has 274431 bytes, a volume of 314572800 bytes needs 274432"},
		{"zeroes", func(a *area) { clear(a.data) }, ErrNone,
			"no metadata here; make it with `twinbd create`"},
		{"both copies damaged", func(a *area) { a.data[500]++; a.data[64<<10+500]++ }, block.ErrSlotCorrupt,
			"metadata is unreadable: first copy: checksum does not match; second copy: checksum does not match"},
		{"one unreadable, one wiped", func(a *area) { a.broken = []Run{{0, 1}}; clear(a.data[64<<10:][:4096]) }, errBroken,
			"metadata is unreadable: first copy: input/output error; second copy: empty"},
		{"something else", func(a *area) { copy(a.data, "EFI PART"); copy(a.data[64<<10:], "LUKS....") }, block.ErrSlotForeign,
			"metadata is unreadable: first copy: not of this kind; second copy: not of this kind"},
		{"copies in each other's place", func(a *area) {
			first := slices.Clone(a.data[:4096])
			copy(a.data, a.data[64<<10:][:4096])
			copy(a.data[64<<10:], first)
		}, nil, "metadata is unreadable: first copy: sequence 3 does not belong here; second copy: sequence 2 does not belong here"},
		{"newest of a newer version", func(a *area) { newer(a, 4) }, ErrVersion,
			"metadata is not usable: written by a newer twinbd; upgrade this node"},
		{"newest valid but wrong", func(a *area) { copy(a.data, headerImage(1, 4, nil)) }, nil,
			"metadata is not usable: version 1 with 0 bytes is not known"},
		{"intents of a newer version", func(a *area) { copy(a.data[128<<10:], intentsImage(2, nil)) }, ErrVersion,
			"intents are not usable: written by a newer twinbd; upgrade this node"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := usedArea(t)
			tt.damage(a)
			m, err := Load(a, int64(len(a.data)))
			if m != nil || err == nil || err.Error() != tt.says || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("error is %q\nwant     %q", fmt.Sprint(err), tt.says)
			}
		})
	}
}

func TestLoadTakesTheOtherHeader(t *testing.T) {
	for name, damage := range map[string]func(a *area){
		"newer damaged":    func(a *area) { a.data[64<<10+4]++ },
		"newer unreadable": func(a *area) { a.broken = []Run{{64<<10 + 4095, 1}} },
		"newer wiped":      func(a *area) { clear(a.data[64<<10:][:4096]) },
	} {
		a := usedArea(t)
		damage(a)
		m := a.load(t)
		if m.Sequence != 2 || m.Header != testHeader() || m.HeaderErrors[0] != nil || m.HeaderErrors[1] == nil {
			t.Errorf("%s: sequence %d, errors %v", name, m.Sequence, m.HeaderErrors)
		}
	}
}

func TestLoadOfBadIntents(t *testing.T) {
	l, err := new(testHeader()).Layout()
	if err != nil {
		t.Fatal(err)
	}
	older, newer := l.IntentsOffset(2), l.IntentsOffset(3)
	tests := []struct {
		name     string
		damage   func(a *area)
		lost     bool
		sequence uint64
		regions  []uint32
	}{
		{"older damaged", func(a *area) { a.data[older+20]++ }, false, 3, []uint32{3, 7, 299}},
		{"newer damaged", func(a *area) { a.data[newer+20]++ }, false, 2, nil},
		{"both damaged", func(a *area) { a.data[older+20]++; a.data[newer+20]++ }, true, 0, nil},
		{"older unreadable", func(a *area) { a.broken = []Run{{older, 1}} }, true, 3, []uint32{3, 7, 299}},
		{"newer unreadable", func(a *area) { a.broken = []Run{{newer, 1}} }, true, 2, nil},
		{"newer wiped", func(a *area) { clear(a.data[newer:][:512]) }, true, 2, nil},
		{"newer of something else", func(a *area) { copy(a.data[newer:], "12345678") }, true, 2, nil},
		{"newer of another area", func(a *area) {
			a.write(Write{Offset: newer, Data: NewIntents(l).Encode(make([]byte, 4096), 1, 3)})
		}, true, 2, nil},
		{"newer in the place of the older", func(a *area) { copy(a.data[older:][:4096], a.data[newer:]) }, true, 3, []uint32{3, 7, 299}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := usedArea(t)
			tt.damage(a)
			m := a.load(t)
			if m.IntentsLost != tt.lost || m.IntentsSequence != tt.sequence || !slices.Equal(m.Regions, tt.regions) {
				t.Errorf("lost %v, sequence %d, regions %v", m.IntentsLost, m.IntentsSequence, m.Regions)
			}
			if allDirty := m.Bits.Count() == m.Bits.Blocks(); allDirty != tt.lost {
				t.Errorf("%d of %d blocks are dirty", m.Bits.Count(), m.Bits.Blocks())
			}
			if m.IntentsErrors == [2]error{} {
				t.Error("no copy is reported")
			}
			if tt.lost && m.Bits.Unsaved() != m.Bits.Pages() {
				t.Errorf("%d of %d pages are unsaved", m.Bits.Unsaved(), m.Bits.Pages())
			}
		})
	}
}

func TestLoadOfBadPages(t *testing.T) {
	l, err := new(testHeader()).Layout()
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func(a *area){
		"damaged":    func(a *area) { a.data[l.PageOffset(1)+1000]++ },
		"unreadable": func(a *area) { a.broken = []Run{{l.PageOffset(1) + 1000, 1}} },
		"another":    func(a *area) { copy(a.data[l.PageOffset(1):][:PageSize], a.data[l.PageOffset(0):]) },
	} {
		a := usedArea(t)
		damage(a)
		m := a.load(t)
		want := []Run{{100, 20}, {PageBlocks, PageBlocks}}
		if !slices.Equal(runsOf(m.Bits), want) || !slices.Equal(m.BadPages, []int{1}) {
			t.Errorf("%s: dirty %v, bad pages %v", name, runsOf(m.Bits), m.BadPages)
		}
		if page, ok := m.Bits.NextUnsaved(0); !ok || page != 1 || m.Bits.Unsaved() != 1 {
			t.Errorf("%s: page %d is unsaved, %d are", name, page, m.Bits.Unsaved())
		}
	}
}

// TestHostileGeometryAllocatesNothing: what a header says of sizes is believed
// only as far as the area goes.
func TestHostileGeometryAllocatesNothing(t *testing.T) {
	h := testHeader()
	h.Size, h.RegionSize, h.IntentLimit = MaxSize, MinRegionSize, MaxIntentLimit
	a := newArea(t, testHeader())
	a.write(headerWrite(t, h, 3))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := Load(a, int64(len(a.data)))
	runtime.ReadMemStats(&after)
	if err == nil || !strings.Contains(err.Error(), "metadata is cut short") {
		t.Errorf("error is %v", err)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Errorf("%d bytes were allocated", n)
	}
}
