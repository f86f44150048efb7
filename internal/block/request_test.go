// SPDX-License-Identifier: Apache-2.0

package block

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// A record's header is an NBD request, byte for byte.
func TestRecordLayout(t *testing.T) {
	want := []byte{
		0x25, 0x60, 0x95, 0x13, // magic
		0, 1, // flags: FUA
		0, 1, // write
		1, 2, 3, 4, 5, 6, 7, 8, // cookie
		0, 0, 0, 0x12, 0x34, 0x56, 0x78, 0x90, // offset
		0x02, 0, 0, 0, // length: 32 MiB
	}
	got := make([]byte, RecordHeader)
	PutRecord(got, Write, FUA, 0x0102030405060708, 0x1234567890, MaxLength)
	if !bytes.Equal(got, want) {
		t.Errorf("% x, not\n% x", got, want)
	}
}

func TestRecordRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := Record{
			Op:     Op(rapid.Uint16().Draw(t, "op")),
			Flags:  Flags(rapid.Uint16().Draw(t, "flags")),
			Cookie: rapid.Uint64().Draw(t, "cookie"),
			Offset: rapid.Uint64().Draw(t, "offset"),
			Length: rapid.Uint32().Draw(t, "length"),
		}
		b := make([]byte, RecordHeader+3)
		PutRecord(b, want.Op, want.Flags, want.Cookie, int64(want.Offset), int64(want.Length))
		if got, ok := ParseRecord(b); !ok || got != want {
			t.Fatalf("%+v, not %+v", got, want)
		}
		if !bytes.Equal(b[RecordHeader:], []byte{0, 0, 0}) {
			t.Fatal("it wrote beyond the header")
		}
	})
}

func TestParseRecordRefusesOtherMagic(t *testing.T) {
	b := make([]byte, RecordHeader)
	PutRecord(b, Write, 0, 1, 2, 3)
	for i := range 4 {
		b[i]++
		if _, ok := ParseRecord(b); ok {
			t.Errorf("byte %d of the magic is wrong, and it was taken", i)
		}
		b[i]--
	}
}

func TestOps(t *testing.T) {
	changes := map[Op]bool{Write: true, Trim: true, WriteZeroes: true}
	names := map[string]Op{}
	for _, op := range []Op{Read, Write, Flush, Trim, Cache, WriteZeroes, BlockStatus, 2, 77} {
		if op.Changes() != changes[op] {
			t.Errorf("%v changes content: %t", op, op.Changes())
		}
		if other, taken := names[op.String()]; taken {
			t.Errorf("%d and %d are both %q", other, op, op)
		}
		names[op.String()] = op
	}
}

func TestStatusAsError(t *testing.T) {
	if err := OK.Err(); err != nil {
		t.Errorf("OK is an error: %v", err)
	}
	names := map[string]Status{}
	for _, s := range []Status{NotPermitted, IOError, NoMemory, Invalid, NoSpace, Overflow, NotSupported, ShuttingDown, 99} {
		if err := s.Err(); !errors.Is(err, s) || StatusOf(fmt.Errorf("step: %w", err)) != s {
			t.Errorf("status %d does not come back from its error %v", s, err)
		}
		if other, taken := names[s.Error()]; taken {
			t.Errorf("%d and %d are both %q", other, s, s)
		}
		names[s.Error()] = s
	}
}
