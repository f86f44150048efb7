// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/twinbd/twinbd/internal/block"
)

func TestRepliesLeaveInCompletionOrder(t *testing.T) {
	g := newRig(t, Negotiated{}, Options{})
	g.hold = true
	for i := range uint64(4) {
		if _, err := g.exchange(req(block.Write, 0, i, int64(i), 1, byte(i))); err != nil {
			t.Fatal(err)
		}
	}
	for _, i := range []int{2, 0, 3, 1} {
		g.do(g.held[i])
	}
	if out := g.s.Output(); len(out) != 1 {
		t.Errorf("four small replies lie in %d pieces", len(out))
	}
	g.take(-1)
	if got, want := show(g.sent, nil), "2 simple ok\n0 simple ok\n3 simple ok\n1 simple ok\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// TestOutputStaysUnchanged: what Output returned is not touched by replies that
// come before it is sent.
func TestOutputStaysUnchanged(t *testing.T) {
	g := newRig(t, Negotiated{}, Options{})
	if _, err := g.feed(append(req(block.Flush, 0, 1, 0, 0), req(block.Flush, 0, 2, 0, 0)...)); err != nil {
		t.Fatal(err)
	}
	g.hold = true
	g.turn()
	g.do(g.held[0])
	out := g.s.Output()
	before := bytes.Join(out, nil)
	g.do(g.held[1])
	if after := bytes.Join(out, nil); !bytes.Equal(before, after) || len(before) != simpleHeader {
		t.Errorf("%x became %x", before, after)
	}
	g.take(-1)
	if got, want := show(g.sent, nil), "1 simple ok\n2 simple ok\n"; got != want {
		t.Errorf("got\n%s", got)
	}
}

func TestRequestBound(t *testing.T) {
	g := newRig(t, Negotiated{}, Options{Requests: 10})
	g.hold = true
	var input []byte
	for i := range uint64(25) {
		input = append(input, req(block.Write, 0, i, int64(i), 1, byte(i))...)
	}
	if rest, err := g.feed(input); err != nil || len(rest) > 0 {
		t.Fatal(err, len(rest))
	}
	g.turn()
	if len(g.held) != 10 || g.s.Room() != nil || g.s.Stats().Stalls != 1 {
		t.Fatalf("%d in flight, room %d, %+v", len(g.held), len(g.s.Room()), g.s.Stats())
	}
	g.do(g.held[0])
	if g.s.Room() != nil || len(g.batch.Requests) != 0 {
		t.Error("a completion alone decodes more: the engine may be in the middle of the batch")
	}
	g.take(-1)
	if g.wakes != 1 || len(g.batch.Requests) != 1 {
		t.Errorf("%d wakes and %d requests after one reply was sent", g.wakes, len(g.batch.Requests))
	}
	g.held, g.hold = g.held[1:], false
	for _, r := range g.held {
		g.do(r)
	}
	sent, err := g.exchange(nil)
	if err != nil || strings.Count(show(append(g.sent, sent...), nil), "ok\n") != 25 {
		t.Errorf("%v: %s", err, show(sent, nil))
	}
	for i := range byte(25) {
		if g.disk[i] != i {
			t.Fatalf("byte %d is %d", i, g.disk[i])
		}
	}
}

// TestUnsentRepliesHoldBack: a client that sends and never receives is not
// served without end.
func TestUnsentRepliesHoldBack(t *testing.T) {
	for _, n := range []Negotiated{{}, {Structured: true}} {
		for _, op := range []block.Op{block.Flush, block.Read, 99} {
			g := newRig(t, n, Options{Requests: 8})
			input := req(op, 0, 1, 0, 4096)
			if op == block.Flush {
				input = req(op, 0, 1, 0, 0)
			}
			fed := 0
			for ; fed < 100000; fed++ {
				rest, err := g.feed(input)
				if err != nil {
					t.Fatal(err)
				}
				g.turn()
				if len(rest) > 0 {
					break
				}
			}
			unsent := 0
			for _, b := range g.s.Output() {
				unsent += len(b)
			}
			if fed == 100000 || unsent > 10*smallReply+8*(4096+dataHeader) {
				t.Errorf("op %d structured %v: %d requests were taken, %d bytes of replies wait", op, n.Structured, fed, unsent)
			}
		}
	}
}

func TestLongestWriteAlwaysFits(t *testing.T) {
	g := newRig(t, Negotiated{Export: Export{Size: 1 << 40}}, Options{Requests: 4})
	g.hold = true
	lengths := []int64{20 << 20, block.MaxLength, 1, block.MaxLength}
	payload := make([]byte, block.MaxLength)
	var input []byte
	for i, n := range lengths {
		payload[0] = byte(i)
		input = append(input, req(block.Write, 0, uint64(i), 0, n, payload[:n]...)...)
	}
	done := 0
	for done < len(lengths) {
		rest, err := g.feed(input)
		if err != nil {
			t.Fatal(err)
		}
		progress := len(rest) < len(input)
		input = rest
		g.turn()
		for _, r := range g.held {
			if r.Length != lengths[done] || r.Data[0] != byte(done) || len(r.Record) != block.RecordHeader+len(r.Data) {
				t.Fatalf("write %d has %d bytes", done, r.Length)
			}
			r.Status = block.OK
			r.Owner.Complete(r)
			done, progress = done+1, true
		}
		g.held = nil
		g.take(-1)
		if !progress && len(g.batch.Requests) == 0 {
			t.Fatalf("stuck after %d writes", done)
		}
	}
}

func TestBrokenStreams(t *testing.T) {
	tests := []struct {
		name  string
		input []byte
		want  string
	}{
		{"magic", make([]byte, block.RecordHeader), "wrong magic"},
		{"huge write", req(block.Write, 0, 1, 0, maxSkip+1), "not even read off"},
	}
	for _, test := range tests {
		g := newRig(t, Negotiated{}, Options{})
		_, err := g.exchange(test.input)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error is %v", test.name, err)
		}
		if g.s.Room() != nil || g.hungUp != 0 {
			t.Errorf("%s: room %d, hung up %d times", test.name, len(g.s.Room()), g.hungUp)
		}
	}
	// Found only after a bound was left, the same ends in Hangup.
	g := newRig(t, Negotiated{}, Options{Requests: 1})
	g.hold = true
	if _, err := g.feed(append(append(req(block.Flush, 0, 1, 0, 0), req(block.Flush, 0, 2, 0, 0)...), make([]byte, block.RecordHeader)...)); err != nil {
		t.Fatal(err)
	}
	g.turn()
	g.hold = false
	g.do(g.held[0])
	g.take(-1)
	g.turn()
	g.take(-1)
	if g.hungUp != 1 || !errors.Is(g.hangErr, errMagic) {
		t.Errorf("hung up %d times with %v", g.hungUp, g.hangErr)
	}
}

func TestDisconnect(t *testing.T) {
	g := newRig(t, Negotiated{}, Options{})
	g.hold = true
	input := append(req(block.Write, 0, 1, 0, 1, 9), req(commandDisconnect, 0, 0, 0, 0)...)
	input = append(input, req(block.Write, 0, 2, 0, 1, 8)...) // after it: ignored
	if _, err := g.feed(input); err != nil {
		t.Fatal(err)
	}
	g.turn()
	if g.s.Room() != nil || len(g.held) != 1 || g.hungUp != 0 {
		t.Fatalf("room %d, %d in flight, hung up %d times", len(g.s.Room()), len(g.held), g.hungUp)
	}
	g.do(g.held[0])
	if g.hungUp != 0 {
		t.Error("hung up before the reply was sent")
	}
	g.take(-1)
	if g.hungUp != 1 || g.hangErr != nil || g.disk[0] != 9 || show(g.sent, nil) != "1 simple ok\n" {
		t.Errorf("hung up %d times with %v, disk has %d, sent %s", g.hungUp, g.hangErr, g.disk[0], show(g.sent, nil))
	}
	quiet := newRig(t, Negotiated{}, Options{})
	if _, err := quiet.exchange(req(commandDisconnect, 0, 0, 0, 0)); err != nil || quiet.hungUp != 1 {
		t.Errorf("with nothing in flight: %v, hung up %d times", err, quiet.hungUp)
	}
}

func TestClosedWithRequestsInFlight(t *testing.T) {
	freed := 0
	g := newRig(t, Negotiated{Structured: true, Contexts: block.ContextAllocation, place: &place{done: func() { freed++ }}}, Options{})
	g.hold = true
	input := append(req(block.Write, 0, 1, 0, 4, 1, 2, 3, 4), req(block.Read, 0, 2, 0, 4096)...)
	input = append(input, req(block.BlockStatus, 0, 3, 0, 4096)...)
	input = append(input, req(block.Read, 0, 4, 0, 4096)...)
	if _, err := g.feed(input); err != nil {
		t.Fatal(err)
	}
	g.turn()
	g.do(g.held[3]) // its reply is not sent when the connection ends
	g.s.Closed(errors.New("reset"))
	g.s.Closed(nil)
	if g.s.Idle() || g.idle != 0 || freed != 1 {
		t.Errorf("idle %v, told %d times, place given back %d times", g.s.Idle(), g.idle, freed)
	}
	if !bytes.Equal(g.held[0].Data, []byte{1, 2, 3, 4}) {
		t.Error("a write's data changed under the engine")
	}
	for _, r := range g.held[:3] {
		g.do(r)
	}
	if !g.s.Idle() || g.idle != 1 || len(g.s.Output()) != 0 || g.disk[3] != 4 {
		t.Errorf("idle %v, told %d times, %d pieces of output", g.s.Idle(), g.idle, len(g.s.Output()))
	}
	if g.s.Room() != nil {
		t.Error("a closed session has room")
	}
}

func TestShutdown(t *testing.T) {
	g := newRig(t, Negotiated{Structured: true}, Options{})
	g.hold = true
	payload := bytes.Repeat([]byte{5}, 1000)
	half := req(block.Write, 0, 2, 0, 1000, payload...)
	if _, err := g.feed(append(req(block.Write, 0, 1, 0, 1, 9), half[:500]...)); err != nil {
		t.Fatal(err)
	}
	g.turn()
	g.s.Shutdown()
	if _, err := g.feed(append(half[500:], req(block.Read, 0, 3, 0, 1)...)); err != nil {
		t.Fatal(err)
	}
	g.turn()
	g.do(g.held[0])
	g.take(-1)
	want := "2 error shutting down \"this node serves no longer\" done\n3 error shutting down \"this node serves no longer\" done\n1 simple ok\n"
	if got := show(g.sent, nil); got != want || len(g.held) != 1 || g.disk[0] != 9 || g.disk[1] != 0 {
		t.Errorf("%d requests reached the engine; got\n%swant\n%s", len(g.held), got, want)
	}
}

func TestResize(t *testing.T) {
	g := newRig(t, Negotiated{Export: Export{Size: 4096}}, Options{})
	first, _ := g.exchange(req(block.Trim, 0, 1, 4096, 4096))
	g.s.Resize(8192)
	second, _ := g.exchange(req(block.Trim, 0, 2, 4096, 4096))
	if got := show(append(first, second...), nil); got != "1 simple invalid request\n2 simple ok\n" {
		t.Error(got)
	}
}

// TestStreamSplits: however a stream of requests is cut, and however slowly
// the replies leave, the outcome is the same.
func TestStreamSplits(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 12 {
		input, reads := randomStream(rng)
		n := Negotiated{Structured: rng.IntN(2) == 0}
		whole, split := newRig(t, n, Options{Requests: 5}), newRig(t, n, Options{Requests: 5})
		want, err := whole.exchange(input)
		if err != nil {
			t.Fatal(err)
		}
		for len(input) > 0 || !split.s.Idle() {
			k := min(1+rng.IntN(5000), len(input))
			rest, err := split.feed(input[:k])
			if err != nil {
				t.Fatal(err)
			}
			input = input[k-len(rest):]
			split.turn()
			split.take(1 + rng.IntN(3000))
		}
		if _, err := split.drain(); err != nil {
			t.Fatal(err)
		}
		if a, b := sorted(want, reads), sorted(split.sent, reads); a != b || !bytes.Equal(whole.disk, split.disk) {
			t.Fatalf("a split stream has another outcome:\n%s\nand\n%s", a, b)
		}
	}
}

// sorted shows replies in an order of their own: errors may overtake.
func sorted(b []byte, reads map[uint64]int) string {
	lines := strings.Split(show(b, reads), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// randomStream is a stream of requests, and how long its reads are.
func randomStream(rng *rand.Rand) (b []byte, reads map[uint64]int) {
	reads = make(map[uint64]int)
	ops := []block.Op{block.Read, block.Write, block.Write, block.Flush, block.Trim, block.WriteZeroes, block.Cache, 50}
	for i := range uint64(60) {
		op := ops[rng.IntN(len(ops))]
		offset, length := rng.Int64N(1<<20+100), 1+rng.Int64N(100<<10)
		if op == block.Flush {
			offset, length = 0, 0
		}
		var payload []byte
		if op == block.Write {
			payload = make([]byte, length)
			for j := range payload {
				payload[j] = byte(i)
			}
		}
		if op == block.Read {
			reads[i] = int(length)
		}
		b = append(b, req(op, block.Flags(rng.IntN(2)), i, offset, length, payload...)...)
	}
	return b, reads
}

// TestRing holds the packed replies against a plain list of bytes.
func TestRing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const slots = 12
		o := outbox{limit: slots * smallReply}
		var want, got []byte
		inFlight, next := 0, byte(0)
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0:
				if o.roomy(inFlight) {
					inFlight++
				}
			case 1:
				if inFlight == 0 {
					continue
				}
				inFlight--
				next++
				b := o.small(rapid.IntRange(simpleHeader, smallReply).Draw(t, "length"))
				for i := range b {
					b[i] = next
				}
				want = append(want, b...)
			case 2:
				if inFlight == 0 {
					continue
				}
				inFlight--
				next++
				b := bytes.Repeat([]byte{next}, rapid.IntRange(1, 300).Draw(t, "length"))
				o.put(b, &request{})
				want = append(want, b...)
			case 3:
				flat := bytes.Join(o.pending(), nil)
				n := rapid.IntRange(0, len(flat)).Draw(t, "sent")
				got = append(got, flat[:n]...)
				o.sent(n)
			}
			if o.used < 0 || o.used > o.limit {
				t.Fatalf("%d of %d bytes are used", o.used, o.limit)
			}
		}
		got = append(got, bytes.Join(o.pending(), nil)...)
		if !bytes.Equal(got, want) {
			t.Fatalf("sent %d bytes that differ from the %d queued", len(got), len(want))
		}
	})
}

// drain lets everything come to its end, and leaves what was sent in place.
func (g *rig) drain() ([]byte, error) {
	before := g.sent
	g.sent = nil
	sent, err := g.exchange(nil)
	g.sent = append(before, sent...)
	return g.sent, err
}

// serve takes one input through the session as a loop would, copying nothing.
func (g *rig) serve(input []byte) {
	n := copy(g.s.Room(), input)
	if err := g.s.Received(n); err != nil || n != len(input) {
		g.t.Fatal(n, err)
	}
	g.turn()
	for out := g.s.Output(); len(out) > 0; out = g.s.Output() {
		k := 0
		for _, b := range out {
			k += len(b)
		}
		g.s.Sent(k)
		g.turn()
	}
}

func benchmarkInput(op block.Op, depth int, length int64) (b []byte) {
	for i := range depth {
		var payload []byte
		if op == block.Write {
			payload = make([]byte, length)
		}
		b = append(b, req(op, 0, uint64(i), int64(i)*length, length, payload...)...)
	}
	return b
}

func TestNoAllocations(t *testing.T) {
	for _, structured := range []bool{false, true} {
		for _, op := range []block.Op{block.Write, block.Read, block.Trim, block.BlockStatus} {
			n := Negotiated{Structured: structured}
			if structured {
				n.Contexts = block.ContextAllocation
			}
			g := newRig(t, n, Options{})
			input := benchmarkInput(op, 16, 4096)
			g.serve(input)
			if got := testing.AllocsPerRun(100, func() { g.serve(input) }); got != 0 {
				t.Errorf("%v, structured %v: %v allocations for 16 requests", op, structured, got)
			}
		}
	}
}

func BenchmarkSession(b *testing.B) {
	for _, op := range []block.Op{block.Write, block.Read} {
		for _, depth := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("%v/depth=%d", op, depth), func(b *testing.B) {
				g := newRig(b, Negotiated{Structured: true}, Options{})
				input := benchmarkInput(op, depth, 4096)
				g.serve(input)
				b.ReportAllocs()
				b.ResetTimer()
				for range b.N {
					for i := range depth { // a fresh cookie each, as clients do
						at := i * (len(input) / depth)
						binary.BigEndian.PutUint64(input[at+8:], uint64(b.N))
					}
					g.serve(input)
				}
				b.ReportMetric(float64(b.N*depth)/b.Elapsed().Seconds(), "requests/s")
			})
		}
	}
}
