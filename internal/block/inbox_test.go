// SPDX-License-Identifier: Apache-2.0

package block

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"unsafe"
)

// message is what the tests send: a length of four bytes, then the payload.
const messageHeader = 4

// receiver decodes messages as a front end does, and keeps some of them.
type receiver struct {
	in   *Inbox
	held []heldMessage
}

type heldMessage struct {
	want, got []byte
	hold      Hold
}

// receive gives the inbox up to n bytes of the stream. It returns the rest, and
// whether there was room.
func (r *receiver) receive(stream []byte, n int) ([]byte, bool) {
	room := r.in.Room()
	if room == nil {
		return stream, false
	}
	n = copy(room, stream[:min(n, len(stream))])
	r.in.Received(n)
	return stream[n:], true
}

// decode takes all complete messages. It returns false when the pool is empty.
func (r *receiver) decode(next func() []byte) bool {
	for {
		p := r.in.Pending()
		if len(p) < messageHeader {
			return true
		}
		n := messageHeader + int(binary.BigEndian.Uint32(p))
		if len(p) < n {
			return r.in.Fit(n)
		}
		got, hold := r.in.Take(n)
		r.held = append(r.held, heldMessage{next(), got[messageHeader:], hold})
	}
}

// release gives up one held message, after a last look at it.
func (r *receiver) release(t *testing.T, i int) {
	t.Helper()
	m := r.held[i]
	if !bytes.Equal(m.got, m.want) {
		t.Fatalf("a held message of %d bytes has changed", len(m.want))
	}
	m.hold.Release()
	r.held[i] = r.held[len(r.held)-1]
	r.held = r.held[:len(r.held)-1]
}

// Whatever the sizes, the pieces and the order of release: every message arrives
// whole, stays as it is while it is held, and all memory comes back.
func TestInboxKeepsMessagesInPlace(t *testing.T) {
	for _, limit := range []int{0, 1 << 20, 5 << 20, 64 << 20} {
		seed := rand.Uint64()
		t.Logf("limit %d: seed %d", limit, seed)
		source := rand.NewChaCha8([32]byte(binary.LittleEndian.AppendUint64(make([]byte, 24), seed+uint64(limit))))
		rng := rand.New(source)
		pool := NewPool(limit)
		r := &receiver{in: NewInbox(pool)}

		var stream []byte
		var sent [][]byte
		for range 100 {
			p := make([]byte, rng.IntN(1<<rng.IntN(22)))
			_, _ = source.Read(p)
			sent = append(sent, p)
			stream = append(binary.BigEndian.AppendUint32(stream, uint32(len(p))), p...)
		}
		next := func() []byte { p := sent[0]; sent = sent[1:]; return p }

		for len(stream) > 0 || len(sent) > 0 {
			rest, ok := r.receive(stream, 1+rng.IntN(1<<rng.IntN(22)))
			stream = rest
			ok = r.decode(next) && ok
			for len(r.held) > 0 && (!ok || rng.IntN(3) == 0) {
				r.release(t, rng.IntN(len(r.held)))
				ok = true
			}
			if !ok {
				t.Fatalf("nothing is held, %d of %d bytes are used, and there is no room", pool.Used(), limit)
			}
		}
		for len(r.held) > 0 {
			r.release(t, 0)
		}
		r.in.Close()
		if pool.Used() != 0 {
			t.Errorf("%d bytes did not come back", pool.Used())
		}
	}
}

// An inbox that alone uses a pool can receive a message of any size: its own
// chunk must not stand in its way.
func TestInboxAloneIsNeverStuck(t *testing.T) {
	pool := NewPool(1 << 20)
	in := NewInbox(pool)
	in.Received(copy(in.Room(), "beginning"))
	if !in.Fit(32<<20 + 28) {
		t.Fatal("no room for one message")
	}
	if string(in.Pending()) != "beginning" {
		t.Errorf("pending %q", in.Pending())
	}
	if n := pool.Used(); n > 34<<20 {
		t.Errorf("%d bytes for a message of 32 MiB", n)
	}
}

// A message for which Fit has made room is received where it is, up to its last
// byte, though little room is left in the chunk.
func TestInboxDoesNotMoveWhatFits(t *testing.T) {
	pool := NewPool(64 << 20)
	in := NewInbox(pool)
	in.Received(len(in.Room()) - 100<<10)
	_, hold := in.Take(ChunkSize - 100<<10)
	defer hold.Release()

	in.Received(copy(in.Room(), "head"))
	if !in.Fit(90 << 10) {
		t.Fatal("no room")
	}
	start := &in.Pending()[0]
	for in.Received(60 << 10); len(in.Pending()) < 90<<10; {
		room := in.Room()
		if &in.Pending()[0] != start {
			t.Fatalf("moved with %d bytes of %d received", len(in.Pending()), 90<<10)
		}
		in.Received(min(len(room), 10<<10))
	}
	if pool.Used() != ChunkSize {
		t.Errorf("%d bytes used", pool.Used())
	}
}

func TestInboxLimit(t *testing.T) {
	pool := NewPool(2 << 20)
	in := NewInbox(pool)
	var holds []Hold
	for {
		room := in.Room()
		if room == nil {
			break
		}
		in.Received(len(room))
		_, hold := in.Take(len(room))
		holds = append(holds, hold)
		if pool.Used() > 2<<20 {
			t.Fatalf("%d bytes handed out", pool.Used())
		}
	}
	if len(holds) != 2 {
		t.Fatalf("%d chunks handed out, not 2", len(holds))
	}
	if in.Fit(1) {
		t.Error("Fit found room where Room did not")
	}
	holds[0].Release()
	if len(in.Room()) != ChunkSize {
		t.Errorf("after a release: room for %d", len(in.Room()))
	}
}

// A quiet connection stays at the start of its chunk, in the cache.
func TestInboxRewinds(t *testing.T) {
	in := NewInbox(NewPool(8 << 20))
	first := &in.Room()[0]
	for range 1000 {
		in.Received(copy(in.Room(), make([]byte, 5000)))
		_, hold := in.Take(4000)
		in.Skip(1000)
		hold.Release()
		if &in.Room()[0] != first {
			t.Fatal("it wandered")
		}
	}
}

func TestAllocIsAdjacent(t *testing.T) {
	pool := NewPool(2 << 20)
	out := NewInbox(pool)
	a, ha, ok := out.Alloc(1000)
	b, hb, ok2 := out.Alloc(24)
	if !ok || !ok2 || len(a) != 1000 || len(b) != 24 {
		t.Fatal("no room")
	}
	if uintptr(unsafe.Pointer(&a[999]))+1 != uintptr(unsafe.Pointer(&b[0])) {
		t.Error("not adjacent")
	}
	_, hc, ok := out.Alloc(ChunkSize)
	if !ok {
		t.Fatal("no room for a second chunk")
	}
	if _, _, ok := out.Alloc(1); ok {
		t.Error("allocated beyond the limit")
	}
	ha.Release()
	hb.Release()
	hc.Release()
	if p, _, ok := out.Alloc(1); !ok || &p[0] == &a[0] {
		t.Error("after all is released: no room, or not in the current chunk")
	}
}

func TestHoldMisuse(t *testing.T) {
	Hold{}.Release() // nothing held
	in := NewInbox(NewPool(1 << 20))
	in.Received(copy(in.Room(), "abc"))
	panics := func(name string, f func()) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Errorf("%s: no panic", name)
			}
		}()
		f()
	}
	panics("take more than is pending", func() { in.Take(4) })
	panics("skip more than is pending", func() { in.Skip(4) })
	_, hold := in.Take(3)
	in.Close()
	hold.Release()
	panics("release twice", hold.Release)
	if in.Pending() != nil {
		t.Error("a closed inbox has something pending")
	}
}

func BenchmarkInbox(b *testing.B) {
	in := NewInbox(NewPool(64 << 20))
	var holds [16]Hold
	b.ReportAllocs()
	b.SetBytes(4096 + 28)
	for i := 0; b.Loop(); i++ {
		if !in.Fit(4096 + 28) {
			b.Fatal("no room")
		}
		for len(in.Pending()) < 4096+28 {
			in.Received(min(len(in.Room()), 4096+28))
		}
		_, hold := in.Take(4096 + 28)
		holds[i%len(holds)].Release()
		holds[i%len(holds)] = hold
	}
}

func TestHoldAgain(t *testing.T) {
	Hold{}.Again().Release()
	pool := NewPool(1 << 20)
	in := NewInbox(pool)
	in.Received(copy(in.Room(), "abc"))
	_, first := in.Take(3)
	second := first.Again()
	in.Close()
	first.Release()
	if pool.Used() == 0 {
		t.Error("the bytes went though one hold is left")
	}
	if second.Release(); pool.Used() != 0 {
		t.Error("the bytes did not come back with the last hold")
	}
}

// Pools that share hand out no more than the share, beside one chunk for each that
// has none; and what comes back is free for all of them.
func TestShare(t *testing.T) {
	s := NewShare(8 * ChunkSize)
	var boxes []*Inbox
	for range 10 {
		boxes = append(boxes, NewInbox(NewPool(6*ChunkSize).Join(s)))
	}
	var holds []Hold
	for i, in := range boxes {
		got := 0
		for {
			b, hold, ok := in.Alloc(ChunkSize)
			if !ok {
				break
			}
			if len(b) != ChunkSize {
				t.Fatal("short")
			}
			holds = append(holds, hold)
			got++
		}
		want := [...]int{6, 2}
		if most := 1; i >= len(want) && got != most || i < len(want) && got != want[i] {
			t.Errorf("pool %d got %d chunks", i, got)
		}
	}
	if s.Used() != 16*ChunkSize {
		t.Errorf("%d chunks are out", s.Used()/ChunkSize)
	}
	for _, h := range holds {
		h.Release()
	}
	for _, in := range boxes {
		in.Close()
	}
	if s.Used() != 0 {
		t.Errorf("%d bytes never came back", s.Used())
	}
	if _, _, ok := boxes[9].Alloc(4 * ChunkSize); !ok {
		t.Error("what came back is not free")
	}
}
