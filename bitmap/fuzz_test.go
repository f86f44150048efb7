// SPDX-License-Identifier: Apache-2.0

package bitmap

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/twinbd/twinbd/internal/block"
)

// FuzzHeader: no payload, with a right checksum or a wrong one, does anything
// but decode to a header that encodes to the same payload, or be refused.
func FuzzHeader(f *testing.F) {
	f.Add(payloadOf(f, testHeader()), uint32(1))
	f.Add([]byte{}, uint32(2))
	f.Fuzz(func(t *testing.T, payload []byte, version uint32) {
		if len(payload) > HeaderSize-block.SlotHeader {
			return
		}
		h, sequence, err := DecodeHeader(headerImage(version, 7, payload))
		if err != nil {
			return
		}
		again := make([]byte, HeaderSize)
		if err := h.Encode(again, sequence); err != nil {
			t.Fatalf("decoded, but %v", err)
		}
		if !bytes.Equal(again, headerImage(1, 7, payload)) {
			t.Fatalf("encoded differently:\n%x\n%x", payload, again)
		}
	})
}

// FuzzIntents is the same for a slot of intents.
func FuzzIntents(f *testing.F) {
	l, err := new(testHeader()).Layout()
	if err != nil {
		f.Fatal(err)
	}
	in := NewIntents(l)
	in.Add(5)
	in.Add(299)
	f.Add(intentsWrite(l, in, 9, 1).Data[block.SlotHeader:block.SlotHeader+intentsHeader+8], uint32(1))
	f.Fuzz(func(t *testing.T, payload []byte, version uint32) {
		if len(payload) > l.IntentsSize() {
			return
		}
		image := intentsImage(version, payload)
		regions, sequence, err := DecodeIntents(image, l, 9)
		if err != nil {
			return
		}
		in := NewIntents(l)
		for _, region := range regions {
			in.Add(region)
		}
		again := in.Encode(make([]byte, in.EncodedLen()), 9, sequence)
		if !bytes.Equal(again, image) {
			t.Fatalf("encoded differently:\n%x\n%x", payload, again)
		}
	})
}

// FuzzPage: a page decodes to just its bits, or becomes all dirty.
func FuzzPage(f *testing.F) {
	const size = (PageBlocks + 77) * block.Size
	b := NewBits(size)
	b.Set(PageBlocks+3, 5)
	p := make([]byte, PageSize)
	b.EncodePage(1, 9, p)
	f.Add(p, true)
	f.Add(p[:100], false)
	f.Fuzz(func(t *testing.T, src []byte, seal bool) {
		p := make([]byte, PageSize)
		copy(p, src)
		if seal {
			reseal(p)
		}
		b := NewBits(size)
		r := b.PageRun(1)
		if b.DecodePage(1, 9, p) != nil {
			if b.Count() != r.Count || !b.Full(r.First, r.Count) || b.Saved(1) {
				t.Fatalf("refused, but %d of %d blocks are dirty", b.Count(), r.Count)
			}
			return
		}
		for i := range r.Count {
			if want := p[pageHeader+i/8]>>(i%8)&1 == 1; b.Any(r.First+i, 1) != want {
				t.Fatalf("block %d is %v", i, !want)
			}
		}
		if b.Any(0, PageBlocks) || !b.Saved(1) {
			t.Fatal("another page was touched, or this one is not saved")
		}
	})
}

// FuzzLoad: an area damaged anywhere gives an error, or everything that was
// dirty or intended. Both copies of each slot say the same, so that an older
// one is no excuse. With seal the header and the pages get right checksums
// again, and only what cannot be mended by that must hold.
func FuzzLoad(f *testing.F) {
	a := usedArea(f)
	m := a.load(f)
	in := NewIntents(m.Layout)
	for _, region := range m.Regions {
		in.Add(region)
	}
	a.write(intentsWrite(m.Layout, in, m.Header.Salt, m.IntentsSequence+1))
	a.write(headerWrite(f, m.Header, m.Sequence+1))
	f.Add(int64(len(a.data)), uint32(40), []byte{1, 2, 3}, false)
	f.Add(int64(len(a.data)), uint32(m.Layout.PageOffset(1)+50), []byte{0}, true)
	f.Add(int64(70000), uint32(0), []byte{}, false)
	f.Add(int64(len(a.data)), uint32(32), []byte{0, 0, 0x40}, true)
	f.Fuzz(func(t *testing.T, size int64, offset uint32, patch []byte, seal bool) {
		d := a.clone()
		d.data = d.data[:min(max(size, 0), int64(len(d.data)))]
		if int64(offset) < int64(len(d.data)) {
			copy(d.data[offset:], patch)
		}
		if seal {
			sealAll(d.data, m.Layout)
		}
		got, err := Load(d, int64(len(d.data)))
		if err != nil || seal {
			return
		}
		for _, r := range usedRuns {
			if !got.Bits.Full(r.First, r.Count) {
				t.Fatalf("blocks %v are clean", r)
			}
		}
		if !got.IntentsLost && len(got.Regions) != len(m.Regions) {
			t.Fatalf("intents %v, want %v", got.Regions, m.Regions)
		}
	})
}

// sealAll makes the checksums of headers, intents and pages right again where
// the lengths allow it.
func sealAll(data []byte, l Layout) {
	sealSlot := func(offset int64, most int) {
		if offset+int64(most) > int64(len(data)) {
			return
		}
		p := data[offset : offset+int64(most)]
		if n := int(binary.BigEndian.Uint32(p[12:])); n <= most-block.SlotHeader {
			rest := bytes.Clone(p)
			block.EncodeSlot(p, binary.BigEndian.Uint64(p), binary.BigEndian.Uint32(p[8:]), binary.BigEndian.Uint64(p[16:]), rest[block.SlotHeader:block.SlotHeader+n])
		}
	}
	for sequence := range uint64(2) {
		sealSlot(HeaderOffset(sequence), HeaderSize)
		sealSlot(l.IntentsOffset(sequence), l.IntentsSize())
	}
	for page := range l.Pages() {
		if offset := l.PageOffset(page); offset+PageSize <= int64(len(data)) {
			reseal(data[offset : offset+PageSize])
		}
	}
}
