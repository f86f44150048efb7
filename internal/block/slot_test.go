// SPDX-License-Identifier: Apache-2.0

package block

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const testMagic = 0x1122334455667788

func slotOf(sequence uint64, payload string) []byte {
	return EncodeSlot(make([]byte, 4096), testMagic, 3, sequence, []byte(payload))
}

// The layout is a promise to files that exist: these bytes never change.
func TestSlotLayout(t *testing.T) {
	want := []byte{
		0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, // magic
		0, 0, 0, 3, // version
		0, 0, 0, 2, // length
		0, 0, 0, 0, 0, 0, 1, 5, // sequence
		0, 0, 0, 0, // zero
		0xab, 0x4f, 0xfe, 0x99, // crc32c
		'h', 'i', 0, 0,
	}
	got := EncodeSlot(bytes.Repeat([]byte{0xee}, len(want)), testMagic, 3, 0x105, []byte("hi"))
	if !bytes.Equal(got, want) {
		t.Errorf("encoded\n% x, not\n% x", got, want)
	}
}

func TestSlotRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		payload := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "payload")
		version, sequence := rapid.Uint32().Draw(t, "version"), rapid.Uint64().Draw(t, "sequence")
		room := SlotHeader + len(payload) + rapid.IntRange(0, 600).Draw(t, "spare")
		b := EncodeSlot(bytes.Repeat([]byte{0xee}, room), testMagic, version, sequence, payload)
		s, err := DecodeSlot(b, testMagic)
		if err != nil || s.Version != version || s.Sequence != sequence || !bytes.Equal(s.Payload, payload) {
			t.Fatalf("decoded %+v, %v", s, err)
		}
		if spare := b[SlotHeader+len(payload):]; !bytes.Equal(spare, make([]byte, len(spare))) {
			t.Fatal("what follows the payload is not zero")
		}
		// Any one changed bit is found, unless it is in what nobody reads.
		at, bit := rapid.IntRange(0, SlotHeader+len(payload)-1).Draw(t, "byte"), rapid.IntRange(0, 7).Draw(t, "bit")
		if at >= 24 && at < 28 {
			at = 28
		}
		b[at] ^= 1 << bit
		if _, err := DecodeSlot(b, testMagic); err == nil {
			t.Fatalf("bit %d of byte %d is flipped, and nobody noticed", bit, at)
		}
	})
}

func TestDecodeSlotRefuses(t *testing.T) {
	long := slotOf(1, "payload")
	binary.BigEndian.PutUint32(long[12:], 1<<32-1)
	foreign := slotOf(1, "payload")
	foreign[0]++
	corrupt := slotOf(1, "payload")
	corrupt[SlotHeader]++
	for _, c := range []struct {
		name string
		b    []byte
		want error
	}{
		{"nothing", nil, ErrSlotCorrupt},
		{"a cut header", slotOf(1, "")[:SlotHeader-1], ErrSlotCorrupt},
		{"a cut payload", slotOf(1, "payload")[:SlotHeader+6], ErrSlotCorrupt},
		{"zeroes", make([]byte, 4096), ErrSlotEmpty},
		{"another magic", foreign, ErrSlotForeign},
		{"a length beyond the end", long, ErrSlotCorrupt},
		{"another payload", corrupt, ErrSlotCorrupt},
	} {
		if _, err := DecodeSlot(c.b, testMagic); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, not %v", c.name, err, c.want)
		}
	}
}

func TestEncodeSlotPanicsWithoutRoom(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	EncodeSlot(make([]byte, SlotHeader+1), testMagic, 1, 1, []byte("hi"))
}

func TestNewestSlot(t *testing.T) {
	bad, empty := slotOf(9, "bad"), make([]byte, 4096)
	bad[SlotHeader]++
	for _, c := range []struct {
		name  string
		a, b  []byte
		want  string
		which int
	}{
		{"the second is newer", slotOf(4, "old"), slotOf(5, "new"), "new", 1},
		{"the first is newer", slotOf(6, "new"), slotOf(5, "old"), "new", 0},
		{"equal numbers", slotOf(5, "a"), slotOf(5, "b"), "a", 0},
		{"the second is torn", slotOf(4, "old"), bad, "old", 0},
		{"the first is torn", bad, slotOf(5, "old"), "old", 1},
		{"the first was never written", empty, slotOf(1, "only"), "only", 1},
		{"the second was never written", slotOf(1, "only"), empty, "only", 0},
	} {
		s, which, err := NewestSlot(c.a, c.b, testMagic)
		if err != nil || string(s.Payload) != c.want || which != c.which {
			t.Errorf("%s: %q in %d, %v", c.name, s.Payload, which, err)
		}
	}
	_, _, err := NewestSlot(bad, empty, testMagic)
	if !errors.Is(err, ErrSlotCorrupt) || !errors.Is(err, ErrSlotEmpty) || !strings.Contains(err.Error(), "first copy: checksum") {
		t.Errorf("both unusable: %v", err)
	}
}

// A write of a slot that is cut after any number of sectors leaves the old
// record or the new one, never another.
func TestSlotSurvivesTornWrite(t *testing.T) {
	const place = 4096
	old := slotOf(7, strings.Repeat("old ", 500))
	next := slotOf(8, strings.Repeat("new ", 500))
	before := slotOf(6, strings.Repeat("before ", 300))
	for sectors := range place/512 + 1 {
		torn := bytes.Clone(before)
		copy(torn, next[:sectors*512])
		s, _, err := NewestSlot(old, torn, testMagic)
		if err != nil {
			t.Fatalf("%d sectors: %v", sectors, err)
		}
		if text := string(s.Payload[:4]); s.Sequence == 7 && text != "old " || s.Sequence == 8 && text != "new " || s.Sequence < 7 {
			t.Errorf("%d sectors: record %d, %q", sectors, s.Sequence, text)
		}
	}
}

func FuzzDecodeSlot(f *testing.F) {
	f.Add(slotOf(1, "payload"))
	f.Add(make([]byte, SlotHeader))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeSlot(b, testMagic)
		if err != nil {
			return
		}
		again := EncodeSlot(make([]byte, SlotHeader+len(s.Payload)), testMagic, s.Version, s.Sequence, s.Payload)
		if clear(b[24:28]); !bytes.Equal(again[:24], b[:24]) || !bytes.Equal(again[32:], b[32:len(again)]) {
			t.Error("decoded and encoded again, it is another")
		}
	})
}
