// SPDX-License-Identifier: Apache-2.0

package bitmap

import (
	"errors"
	"fmt"
	"io"
	"testing"
)

// area is a metadata area in memory.
type area struct {
	data   []byte
	broken []Run // bytes that cannot be read
}

var errBroken = errors.New("input/output error")

func (a *area) ReadAt(p []byte, offset int64) error {
	if offset < 0 || offset+int64(len(p)) > int64(len(a.data)) {
		return fmt.Errorf("read %d+%d of %d: %w", offset, len(p), len(a.data), io.ErrUnexpectedEOF)
	}
	copy(p, a.data[offset:]) // even if it fails: what a failed read leaves is not to be believed
	for _, r := range a.broken {
		if offset < r.First+r.Count && r.First < offset+int64(len(p)) {
			return errBroken
		}
	}
	return nil
}

func (a *area) write(w Write) { copy(a.data[w.Offset:], w.Data) }

func (a *area) clone() *area {
	return &area{data: append([]byte(nil), a.data...)}
}

func (a *area) load(t testing.TB) *Metadata {
	t.Helper()
	m, err := Load(a, int64(len(a.data)))
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	return m
}

// testHeader is a header with something in every field.
func testHeader() Header {
	h := Header{
		Cluster: "systel", Service: "postgres", Volume: "pgdata", Node: "alpha", Peer: "beta",
		VolumeID: [16]byte{0xaa, 0xbb, 15: 0xff},
		DiskID:   "file:6f1c:131",
		Size:     300 << 20, RegionSize: DefaultRegionSize, IntentLimit: 64,
		Salt:        0x0123456789abcdef,
		State:       Consistent,
		Generation:  Generation{0x10, 15: 1},
		Base:        Generation{0x20, 15: 2},
		Intended:    Generation{0x30, 15: 3},
		Ancestors:   [MaxAncestors]Generation{{0x20, 15: 2}, {0x40, 15: 4}},
		Generations: 3,
		LastPrimary: true, Serving: true,
		Moment: 78, PeerMoment: 77, ResyncID: 5,
		Forced: "root at beta, 2026-01-02 03:04:05 UTC",
		Reason: "flush: input/output error",
	}
	return h
}

// newArea is a formatted area for h.
func newArea(t testing.TB, h Header) *area {
	t.Helper()
	l, err := h.Layout()
	if err != nil {
		t.Fatal(err)
	}
	writes, err := Format(h)
	if err != nil {
		t.Fatal(err)
	}
	a := &area{data: make([]byte, l.Bytes())}
	for w := range writes {
		a.write(w)
	}
	return a
}

// pageWrite, intentsWrite and headerWrite are what an engine would write.
func pageWrite(l Layout, b *Bits, page int, salt uint64) Write {
	data := make([]byte, PageSize)
	b.EncodePage(page, salt, data)
	return Write{Offset: l.PageOffset(page), Data: data}
}

func intentsWrite(l Layout, in *Intents, salt, sequence uint64) Write {
	data := in.Encode(make([]byte, in.EncodedLen()), salt, sequence)
	return Write{Offset: l.IntentsOffset(sequence), Data: data}
}

func headerWrite(t testing.TB, h Header, sequence uint64) Write {
	t.Helper()
	data := make([]byte, HeaderSize)
	if err := h.Encode(data, sequence); err != nil {
		t.Fatal(err)
	}
	return Write{Offset: HeaderOffset(sequence), Data: data}
}

// runsOf is the whole set as runs.
func runsOf(b *Bits) (runs []Run) {
	for from := int64(0); ; {
		first, count, ok := b.Next(from, b.Blocks())
		if !ok {
			return runs
		}
		runs = append(runs, Run{first, count})
		from = first + count
	}
}

func mustPanic(t *testing.T, what string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s does not panic", what)
		}
	}()
	f()
}

func mustNotAllocate(t *testing.T, what string, f func()) {
	t.Helper()
	if n := testing.AllocsPerRun(100, f); n != 0 {
		t.Errorf("%s allocates %v times", what, n)
	}
}
