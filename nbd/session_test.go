// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/twinbd/twinbd/internal/block"
)

// rig is a session with an engine on memory, driven by hand. (nbdtest imports
// this package, so tests of its inside have an engine of their own.)
type rig struct {
	t       testing.TB
	s       *Session
	batch   block.Batch
	disk    []byte
	held    []*block.Request
	hold    bool
	status  block.Status // of all that is carried out
	sent    []byte
	wakes   int
	hungUp  int
	hangErr error
	idle    int
}

func newRig(t testing.TB, n Negotiated, o Options) *rig {
	g := &rig{t: t, disk: make([]byte, 1<<20)}
	if n.Export.Size == 0 {
		n.Export.Size = int64(len(g.disk))
	}
	o.Wake = func() { g.wakes++ }
	o.Hangup = func(err error) { g.hungUp++; g.hangErr = err }
	o.Idle = func() { g.idle++ }
	g.s = NewSession(&n, &g.batch, o)
	return g
}

// feed gives bytes to the session as far as it has room, and returns the rest.
func (g *rig) feed(b []byte) ([]byte, error) {
	for len(b) > 0 {
		n := copy(g.s.Room(), b)
		if n == 0 {
			return b, nil
		}
		b = b[n:]
		if err := g.s.Received(n); err != nil {
			return b, err
		}
	}
	return nil, nil
}

// turn carries the batch out, or holds it.
func (g *rig) turn() {
	for i := 0; i < len(g.batch.Requests); i++ {
		r := g.batch.Requests[i]
		if g.hold {
			g.held = append(g.held, r)
			continue
		}
		g.do(r)
	}
	g.batch.Requests = g.batch.Requests[:0]
}

func (g *rig) do(r *block.Request) {
	if r.Op.Changes() && r.Record != nil {
		rec, ok := block.ParseRecord(r.Record)
		if !ok || rec.Op != r.Op || rec.Cookie != r.Cookie || int64(rec.Offset) != r.Offset || int64(rec.Length) != r.Length {
			g.t.Errorf("record %x does not match %v", r.Record[:block.RecordHeader], r.Op)
		}
	}
	r.Status = g.status
	if r.Status == block.OK && r.Op != block.Flush {
		span := g.disk[r.Offset : r.Offset+r.Length]
		switch r.Op {
		case block.Read:
			copy(r.Data, span)
		case block.Write:
			copy(span, r.Data)
		case block.Trim, block.WriteZeroes:
			clear(span)
		}
	}
	r.Owner.Complete(r)
}

// take sends up to n bytes of output in one go; n < 0 means all there is.
func (g *rig) take(n int) {
	for n != 0 {
		out := g.s.Output()
		if len(out) == 0 {
			return
		}
		if len(out) > maxPieces {
			g.t.Errorf("%d pieces at once", len(out))
		}
		k := 0
		for _, b := range out {
			if n >= 0 {
				b = b[:min(len(b), n-k)]
			}
			g.sent = append(g.sent, b...)
			k += len(b)
		}
		g.s.Sent(k)
		if n > 0 {
			n -= k
		}
	}
}

// exchange feeds, carries out and takes until nothing moves, and returns what
// was sent.
func (g *rig) exchange(b []byte) ([]byte, error) {
	var err error
	for moved := true; moved && err == nil; {
		before, stats := len(b), g.s.Stats()
		b, err = g.feed(b)
		g.turn()
		g.take(-1)
		moved = len(b) != before || len(g.batch.Requests) > 0 || g.s.Stats() != stats
	}
	sent := g.sent
	g.sent = nil
	return sent, err
}

// req builds a request.
func req(op block.Op, flags block.Flags, cookie uint64, offset, length int64, payload ...byte) []byte {
	b := make([]byte, block.RecordHeader)
	block.PutRecord(b, op, flags, cookie, offset, length)
	return append(b, payload...)
}

// show decodes a stream of replies to text, one per line. reads tells the
// lengths of simple replies with data, by cookie.
func show(b []byte, reads map[uint64]int) string {
	var s strings.Builder
	for len(b) > 0 {
		magic := binary.BigEndian.Uint32(b)
		cookie := binary.BigEndian.Uint64(b[8:])
		if magic == magicSimple {
			status := block.Status(binary.BigEndian.Uint32(b[4:]))
			fmt.Fprintf(&s, "%d simple %v", cookie, status)
			b = b[simpleHeader:]
			if n := reads[cookie]; n > 0 && status == block.OK {
				fmt.Fprintf(&s, " data %s", runs(b[:n]))
				b = b[n:]
			}
			s.WriteString("\n")
			continue
		}
		if magic != magicStructured {
			fmt.Fprintf(&s, "garbage %x\n", b)
			break
		}
		flags, kind := binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:])
		n := int(binary.BigEndian.Uint32(b[16:]))
		p := b[chunkHeader : chunkHeader+n]
		b = b[chunkHeader+n:]
		switch kind {
		case chunkNone:
			fmt.Fprintf(&s, "%d none", cookie)
		case chunkData:
			fmt.Fprintf(&s, "%d data at %d %s", cookie, binary.BigEndian.Uint64(p), runs(p[8:]))
		case chunkHole:
			fmt.Fprintf(&s, "%d hole at %d of %d", cookie, binary.BigEndian.Uint64(p), binary.BigEndian.Uint32(p[8:]))
		case chunkStatus:
			fmt.Fprintf(&s, "%d status %d:", cookie, binary.BigEndian.Uint32(p))
			for p = p[4:]; len(p) > 0; p = p[8:] {
				fmt.Fprintf(&s, " %d/%d", binary.BigEndian.Uint32(p), binary.BigEndian.Uint32(p[4:]))
			}
		case chunkError:
			fmt.Fprintf(&s, "%d error %v %q", cookie, block.Status(binary.BigEndian.Uint32(p)), p[6:])
		default:
			fmt.Fprintf(&s, "%d type %d", cookie, kind)
		}
		if flags&chunkDone != 0 {
			s.WriteString(" done")
		}
		s.WriteString("\n")
	}
	return s.String()
}

// runs shows bytes as runs, e.g. 4096*00 10*07.
func runs(b []byte) string {
	var s []string
	for len(b) > 0 {
		n := len(b) - len(bytes.TrimLeft(b, string(b[:1])))
		if b[0] >= 0x80 { // TrimLeft takes runes
			for n = 1; n < len(b) && b[n] == b[0]; n++ {
			}
		}
		s = append(s, fmt.Sprintf("%d*%02x", n, b[0]))
		b = b[n:]
	}
	return strings.Join(s, " ")
}

func TestCommands(t *testing.T) {
	all := block.ContextAllocation | block.ContextDirty
	sevens := bytes.Repeat([]byte{7}, 5000)
	plain, structured := Negotiated{}, Negotiated{Structured: true, Contexts: all}
	readOnly := Negotiated{Structured: true, Export: Export{ReadOnly: true}}
	aligned := Negotiated{Export: Export{Minimum: 512, Maximum: 4096}}
	const end = 1 << 20
	tests := []struct {
		name  string
		with  Negotiated
		input []byte
		want  string
	}{
		{"write and read", plain, append(req(block.Write, 0, 1, 10, 5000, sevens...), req(block.Read, 0, 2, 0, 5020)...),
			"1 simple ok\n2 simple ok data 10*00 5000*07 10*00\n"},
		{"write and read, structured", structured, append(req(block.Write, block.FUA, 1, 10, 5000, sevens...), req(block.Read, block.FUA, 2, 0, 5020)...),
			"1 simple ok\n2 data at 0 10*00 5000*07 10*00 done\n"},
		{"flush", plain, req(block.Flush, 0, 3, 0, 0), "3 simple ok\n"},
		{"flush with FUA", plain, req(block.Flush, block.FUA, 3, 0, 0), "3 simple ok\n"},
		{"flush with offset", plain, req(block.Flush, 0, 3, 4096, 0), "3 simple invalid request\n"},
		{"flush with length", structured, req(block.Flush, 0, 3, 0, 1), "3 error invalid request \"a flush has no offset or length\" done\n"},
		{"trim", plain, req(block.Trim, block.FUA, 4, 0, end), "4 simple ok\n"},
		{"trim beyond the end", plain, req(block.Trim, 0, 4, 1, end), "4 simple invalid request\n"},
		{"zeroes", plain, req(block.WriteZeroes, block.FUA|block.NoHole|block.FastZero, 5, 0, end), "5 simple ok\n"},
		{"zeroes beyond the end", plain, req(block.WriteZeroes, 0, 5, 1, end), "5 simple no space\n"},
		{"cache", plain, req(block.Cache, 0, 6, 0, end), "6 simple ok\n"},
		{"cache with a flag", plain, req(block.Cache, block.NoHole, 6, 0, end), "6 simple invalid request\n"},
		{"cache beyond the end", plain, req(block.Cache, 0, 6, end, 1), "6 simple invalid request\n"},
		{"status without context", plain, req(block.BlockStatus, 0, 7, 0, 4096), "7 simple invalid request\n"},
		{"status, nothing known", structured, req(block.BlockStatus, block.ReqOne, 7, 0, 4096), "7 status 1: 4096/0\n7 status 2: 4096/1 done\n"},
		{"status beyond the end", structured, req(block.BlockStatus, 0, 7, end, 4096), "7 error invalid request \"beyond the end of the export\" done\n"},
		{"unknown command", plain, req(77, 0, 8, 0, 0), "8 simple invalid request\n"},
		{"unknown flag", plain, req(block.Read, 1<<9, 9, 0, 1), "9 simple invalid request\n"},
		{"DF without structured replies", plain, req(block.Read, block.DF, 9, 0, 1), "9 simple invalid request\n"},
		{"read beyond the end", plain, req(block.Read, 0, 10, end-1, 2), "10 simple invalid request\n"},
		{"read far beyond the end", structured, req(block.Read, 0, 10, -1, 2), "10 error invalid request \"beyond the end of the export\" done\n"},
		{"read to the end", plain, req(block.Read, 0, 10, end-2, 2), "10 simple ok data 2*00\n"},
		{"write beyond the end", plain, append(req(block.Write, 0, 11, end-1, 2, 1, 2), req(block.Flush, 0, 12, 0, 0)...), "11 simple no space\n12 simple ok\n"},
		{"read of nothing", structured, req(block.Read, 0, 13, 0, 0), "13 error invalid request \"length is zero\" done\n"},
		{"write of nothing", plain, append(req(block.Write, 0, 14, 0, 0), req(block.Flush, 0, 12, 0, 0)...), "14 simple invalid request\n12 simple ok\n"},
		{"read too long", plain, req(block.Read, 0, 15, 0, block.MaxLength+1), "15 simple invalid request\n"},
		{"read too long, structured", structured, req(block.Read, 0, 15, 0, block.MaxLength+1), "15 error overflow \"longer than the maximum block size\" done\n"},
		{"write too long", plain, append(req(block.Write, 0, 16, 0, block.MaxLength+1, make([]byte, block.MaxLength+1)...), req(block.Flush, 0, 12, 0, 0)...),
			"16 simple invalid request\n12 simple ok\n"},
		{"write to read-only", readOnly, append(req(block.Write, 0, 17, 0, 3, 1, 2, 3), req(block.Read, 0, 18, 0, 2)...),
			"17 error not permitted \"export is read-only\" done\n18 data at 0 2*00 done\n"},
		{"trim of read-only", readOnly, req(block.Trim, 0, 17, 0, 3), "17 error not permitted \"export is read-only\" done\n"},
		{"zeroes to read-only", readOnly, req(block.WriteZeroes, 0, 17, 0, 3), "17 error not permitted \"export is read-only\" done\n"},
		{"unaligned offset", aligned, req(block.Read, 0, 19, 1, 512), "19 simple invalid request\n"},
		{"unaligned length", aligned, req(block.Read, 0, 19, 512, 511), "19 simple invalid request\n"},
		{"beyond the export's own maximum", aligned, req(block.Read, 0, 19, 0, 8192), "19 simple invalid request\n"},
		{"aligned", aligned, req(block.Read, 0, 19, 512, 512), "19 simple ok data 512*00\n"},
	}
	reads := map[uint64]int{2: 5020, 10: 2, 19: 512}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g := newRig(t, test.with, Options{})
			if test.name == "read to the end" {
				g.disk[0] = 1
			}
			sent, err := g.exchange(test.input)
			if err != nil {
				t.Fatal(err)
			}
			if got := show(sent, reads); got != test.want {
				t.Errorf("got\n%swant\n%s", got, test.want)
			}
			if !g.s.Idle() {
				t.Error("not idle")
			}
		})
	}
}

func TestEngineFailures(t *testing.T) {
	tests := []struct {
		flags  block.Flags
		status block.Status
		want   block.Status
	}{
		{0, block.IOError, block.IOError},
		{0, block.NoSpace, block.NoSpace},
		{0, block.ShuttingDown, block.ShuttingDown},
		{0, block.NotPermitted, block.NotPermitted},
		{0, block.Status(4711), block.IOError},
		{0, block.NotSupported, block.IOError},
		{block.FastZero, block.NotSupported, block.NotSupported},
	}
	for _, test := range tests {
		g := newRig(t, Negotiated{}, Options{})
		g.status = test.status
		sent, err := g.exchange(req(block.WriteZeroes, test.flags, 1, 0, 4096))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := show(sent, nil), fmt.Sprintf("1 simple %v\n", test.want); got != want {
			t.Errorf("%v with flags %d: got %swant %s", test.status, test.flags, got, want)
		}
	}
	g := newRig(t, Negotiated{Structured: true}, Options{})
	g.status = block.IOError
	sent, err := g.exchange(req(block.Read, 0, 1, 0, 128<<10))
	if got := show(sent, nil); err != nil || got != "1 error input/output error \"input/output error\" done\n" {
		t.Errorf("failed read: %v %s", err, got)
	}
}

func TestProblemTextsFit(t *testing.T) {
	for _, p := range []*problem{problemCommand, problemFlags, problemReadOnly, problemFlush, problemContexts, problemEmpty, problemLong,
		problemLongRead, problemAlignment, problemRange, problemWriteRange, problemShutdown} {
		if len(p.text) > maxProblemText {
			t.Errorf("%q has %d bytes, more than %d", p.text, len(p.text), maxProblemText)
		}
	}
	for _, p := range failures {
		if len(p.text) > maxProblemText {
			t.Errorf("%q has %d bytes, more than %d", p.text, len(p.text), maxProblemText)
		}
	}
}

func TestSparseRead(t *testing.T) {
	const K = 1 << 10
	type span struct{ from, to int }
	tests := []struct {
		name           string
		offset, length int
		flags          block.Flags
		data           []span
		want           string
	}{
		{"all zero", 0, 128 * K, 0, nil, "1 hole at 0 of 131072 done\n"},
		{"short", 0, 60 * K, 0, nil, "1 data at 0 61440*00 done\n"},
		{"DF", 0, 128 * K, block.DF, nil, "1 data at 0 131072*00 done\n"},
		{"hole in front", 0, 128 * K, 0, []span{{64 * K, 128 * K}}, "1 hole at 0 of 65536\n1 data at 65536 65536*11 done\n"},
		{"hole behind", 0, 128 * K, 0, []span{{0, 64 * K}}, "1 data at 0 65536*11\n1 hole at 65536 of 65536 done\n"},
		{"hole between", 0, 128 * K, 0, []span{{0, 32 * K}, {96 * K, 128 * K}},
			"1 data at 0 32768*11\n1 hole at 32768 of 65536\n1 data at 98304 32768*11 done\n"},
		{"data between", 0, 128 * K, 0, []span{{40 * K, 44*K + 1}},
			"1 hole at 0 of 40960\n1 data at 40960 4097*11 4095*00\n1 hole at 49152 of 81920 done\n"},
		{"too small a hole", 0, 64 * K, 0, []span{{0, 10 * K}, {40 * K, 64 * K}}, "1 data at 0 10240*11 30720*00 24576*11 done\n"},
		{"unaligned", 100, 128 * K, 0, []span{{70 * K, 71 * K}},
			"1 data at 100 3996*00\n1 hole at 4096 of 65536\n1 data at 69632 2048*00 1024*11 1024*00\n1 hole at 73728 of 57344\n1 data at 131072 100*00 done\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g := newRig(t, Negotiated{Structured: true}, Options{})
			for _, d := range test.data {
				for i := d.from; i < d.to; i++ {
					g.disk[i] = 0x11
				}
			}
			sent, err := g.exchange(req(block.Read, test.flags, 1, int64(test.offset), int64(test.length)))
			if got := show(sent, nil); err != nil || got != test.want {
				t.Errorf("%v; got\n%swant\n%s", err, got, test.want)
			}
		})
	}
}

func TestStatusReply(t *testing.T) {
	answer := func(flags block.Flags, length int64, allocation ...block.Extent) string {
		g := newRig(t, Negotiated{Structured: true, Contexts: block.ContextAllocation}, Options{})
		g.hold = true
		if _, err := g.exchange(req(block.BlockStatus, flags, 1, 0, length)); err != nil {
			t.Fatal(err)
		}
		r := g.held[0]
		if r.Contexts != block.ContextAllocation {
			t.Errorf("contexts are %b", r.Contexts)
		}
		r.Extents[0] = append(r.Extents[0], allocation[:min(len(allocation), cap(r.Extents[0]))]...)
		r.Owner.Complete(r)
		g.take(-1)
		return show(g.sent, nil)
	}
	a, b := block.Extent{Length: 4096, Flags: 3}, block.Extent{Length: 8192}
	for _, test := range []struct{ got, want string }{
		{answer(0, 12288, a, b), "1 status 1: 4096/3 8192/0 done\n"},
		{answer(0, 6000, a, b), "1 status 1: 4096/3 1904/0 done\n"},
		{answer(0, 4096, a, b), "1 status 1: 4096/3 done\n"},
		{answer(0, 65536, a, block.Extent{}, b), "1 status 1: 4096/3 8192/0 done\n"},
		{answer(block.ReqOne, 65536, a, b), "1 status 1: 4096/3 done\n"},
		{answer(block.ReqOne, 100, a, b), "1 status 1: 100/3 done\n"},
		{answer(0, 65536), "1 status 1: 65536/0 done\n"},
	} {
		if test.got != test.want {
			t.Errorf("got %swant %s", test.got, test.want)
		}
	}
}
