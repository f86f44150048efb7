// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/twinbd/twinbd/internal/block"
)

// TestFrameGolden pins the bytes on the wire, as docs/PROTOCOL.md has them.
func TestFrameGolden(t *testing.T) {
	l := newLink(&Engine{}, true)
	record := make([]byte, block.RecordHeader+4)
	block.PutRecord(record, block.Write, block.FUA, 0x1122334455667788, 0x1000, 4)
	copy(record[block.RecordHeader:], "data")
	ack := make([]byte, ackRangeSize)
	putAckRange(ack, ackRange{first: 7, count: 2, status: block.IOError})
	for _, c := range []struct {
		frame   Frame
		payload []byte
		want    string
	}{
		{Frame{Type: framePing, Session: 0x0102030405060708}, nil,
			"74626431" + "04" + "00" + "0000" + "0102030405060708" + "0000000000000000" + "00000000" + "00000000" + "00000000"},
		{Frame{Type: frameBatch, Session: 1, Sequence: 0x0a, Count: 1}, record,
			"74626431" + "06" + "00" + "0000" + "0000000000000001" + "000000000000000a" + "00000001" + "00000020"},
		{Frame{Type: frameAck, Session: 1, Count: 1}, ack,
			"74626431" + "07" + "00" + "0000" + "0000000000000001" + "0000000000000000" + "00000001" + "00000010"},
	} {
		l.pushCopy(&c.frame, c.payload)
		out := l.Output()
		got := hex.EncodeToString(out[0])
		l.Sent(len(out[0]))
		if got[:len(c.want)] != c.want || got[2*frameHeader:] != hex.EncodeToString(c.payload) {
			t.Errorf("%s is\n%s, want\n%s…", c.frame.Type, got, c.want)
		}
	}
	if got, want := hex.EncodeToString(record), "25609513"+"0001"+"0001"+"1122334455667788"+"0000000000001000"+"00000004"+"64617461"; got != want {
		t.Errorf("record is %s, want %s", got, want)
	}
	if got, want := hex.EncodeToString(ack), "0000000000000007"+"00000002"+"00000005"; got != want {
		t.Errorf("ack is %s, want %s", got, want)
	}
	if x := makeExtent(5, 3); uint64(x) != 0x0000000005000003 || x.first() != 5 || x.count() != 3 {
		t.Errorf("extent is %#016x", uint64(x))
	}
}

// TestFrameDamage changes every bit of a frame: none goes unnoticed.
func TestFrameDamage(t *testing.T) {
	e := &Engine{}
	whole := append(make([]byte, frameHeader), "some payload"...)
	sealFrame(whole, &Frame{Type: framePing, Session: 5})
	for bit := range 8 * len(whole) {
		b := append([]byte(nil), whole...)
		b[bit/8] ^= 1 << (bit % 8)
		l := newLink(e, false)
		n := copy(l.inbox.Room(), b)
		l.inbox.Received(n)
		if err := l.decode(); err == nil {
			t.Errorf("bit %d of byte %d: not noticed", bit%8, bit/8)
		}
	}
}

func TestFrameNames(t *testing.T) {
	for f := frameHello; f < frameTypes; f++ {
		if f.String() == fmt.Sprintf("frame %d", uint8(f)) {
			t.Errorf("frame %d has no name", uint8(f))
		}
	}
	if frameTypes.String() != fmt.Sprintf("frame %d", uint8(frameTypes)) {
		t.Errorf("unknown frame is %s", frameTypes)
	}
}

// situations are the states of a session in which a peer may say anything.
var situations = []string{"greeting", "comparing", "resync target", "resync source", "mirroring secondary", "mirroring primary", "host", "hosted", "verify", "disconnected"}

// situate brings a pair into one of them and returns the node that will hear.
func situate(t *testing.T, which int) (*script, *simNode) {
	s := newScript(t)
	until := func(done func() bool) {
		for i := 0; !done() && i < 1000; i++ {
			if s.do(s.a, nil)+s.do(s.b, nil) == 0 {
				s.deliver([]*simNode{s.a, s.b}[i%2])
			}
			s.arbitrate(s.a)
		}
		s.require(done(), situations[which%len(situations)])
	}
	diverge := func() {
		s.cut()
		s.arbitrated()
		s.write(s.a, 0, 30, 1)
		s.run()
		s.connect()
	}
	switch situations[which%len(situations)] {
	case "greeting":
		s.connect()
		return s, s.b
	case "comparing":
		diverge()
		until(func() bool { return s.b.engine.session.state == Comparing })
		return s, s.b
	case "resync target", "resync source":
		diverge()
		until(func() bool { return len(s.a.engine.resync.runs) > 0 && s.b.engine.session.state == Resyncing })
		if situations[which%len(situations)] == "resync source" {
			return s, s.a
		}
		return s, s.b
	case "mirroring primary":
		s.write(s.a, 3, 1, 1)
		for s.do(s.a, nil) > 0 {
		}
		return s, s.a
	case "host", "hosted":
		s.a.data.FailNext(block.Write, 1, errMedium)
		s.write(s.a, 0, 1, 1)
		until(func() bool { return s.a.engine.mode() == modeRemote })
		if situations[which%len(situations)] == "host" {
			return s, s.b
		}
		s.submit(s.a, block.Read, 0, 0, 1, 0)
		return s, s.a
	case "verify":
		s.must(s.a.engine.Verify(s.now, false))
		s.a.collect()
		return s, s.a
	case "disconnected":
		s.cut()
		return s, s.b
	}
	return s, s.b
}

// forge turns fuzz into a frame that passes every check of its form: what is
// wrong with it is what it says.
func forge(fuzz []byte, session uint64) (frame, rest []byte) {
	if len(fuzz) < 8 {
		return nil, nil
	}
	n := min(int(fuzz[4])<<4|int(fuzz[5])>>4, len(fuzz)-8)
	if fuzz[6]&1 != 0 {
		session += uint64(fuzz[6])
	}
	b := append(make([]byte, frameHeader), fuzz[8:8+n]...)
	if frameType(fuzz[0]) == frameBatch && n >= block.RecordHeader && fuzz[6]&2 == 0 {
		binary.BigEndian.PutUint32(b[frameHeader:], block.RecordMagic)
		b[frameHeader+4], b[frameHeader+6] = 0, 0
	}
	sealFrame(b, &Frame{Type: frameType(fuzz[0] % 32), Flags: fuzz[1], Session: session, Sequence: uint64(fuzz[2]), Count: uint32(fuzz[3])})
	return b, fuzz[8+n:]
}

// FuzzFrame lets a peer that has the key say anything, in every state of the
// session: nothing panics, no task reaches beyond the volume, nothing grows.
func FuzzFrame(f *testing.F) {
	record := make([]byte, 8+block.RecordHeader+8)
	record[0], record[2], record[3], record[5] = byte(frameBatch), 1, 1, (block.RecordHeader+8)<<4&0xff
	record[4] = (block.RecordHeader + 8) >> 4
	block.PutRecord(record[8:], block.Write, 0, 0, simSize-8, 8)
	for which := range situations {
		f.Add(uint8(which), true, true, record)
		for kind := frameHello; kind < frameTypes; kind++ {
			f.Add(uint8(which), true, isDataFrame(kind), append([]byte{byte(kind), flagZero, 1, 1, 1, 0, 0, 0}, make([]byte, 16)...))
		}
		f.Add(uint8(which), false, true, []byte("GET / HTTP/1.1\r\nHost: example\r\nAccept: everything\r\n"))
	}
	f.Fuzz(func(t *testing.T, which uint8, formed, data bool, fuzz []byte) {
		s, n := situate(t, int(which))
		s.client.blind = true // what clients get of a lying peer is beyond checking
		link := n.engine.session.bulk
		if data {
			link = n.engine.session.data
		}
		session := n.engine.session.id
		for i := 0; len(fuzz) > 0 && !link.closed && i < 200; i++ {
			b := fuzz
			if fuzz = nil; formed {
				b, fuzz = forge(b, session)
			}
			hear(link, b)
			n.collect()
			for _, task := range n.tasks {
				if task.Target == block.Data && task.Op != block.Flush && (task.Offset < 0 || task.Length <= 0 || task.Offset+task.Length > simSize) {
					t.Fatalf("%s of %d bytes at %d", task.Op, task.Length, task.Offset)
				}
			}
			if i%3 == 0 {
				s.do(n, nil)
			}
		}
		for s.do(n, nil) > 0 {
		}
		n.engine.Tick(s.now + time.Minute)
		n.collect()
		for s.do(n, nil) > 0 {
		}
		if n.engine.follower.tasks != 0 || n.engine.resync.reads != 0 || n.engine.verify.reads != 0 {
			t.Fatalf("tasks are left: %s", s.describe(n.id))
		}
	})
}

// hear brings bytes to a link as a connection does.
func hear(l *Link, b []byte) {
	for len(b) > 0 && !l.closed {
		k := copy(l.Room(), b)
		if k == 0 {
			return
		}
		b = b[k:]
		_ = l.Received(k)
	}
}

// FuzzHello lets anybody introduce himself in any way.
func FuzzHello(f *testing.F) {
	good, err := json.Marshal(Hello{
		Version: ProtocolVersion, MinVersion: ProtocolMinVersion, Cluster: "sim", Volume: "v", Node: "alpha", Peer: "beta",
		Size: simSize, State: "consistent", Generation: g1, Primary: true,
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"Version":1,"MinVersion":9}`))
	f.Add([]byte(`{"Generation":"x","Ancestors":[[1],[2]]}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, hello []byte) {
		s := newScript(t)
		s.connect()
		b := append(make([]byte, frameHeader), hello...)
		sealFrame(b, &Frame{Type: frameHello})
		hear(s.b.engine.session.data, b)
		if e := s.b.engine; e.session.greeted && (e.session.received.Cluster != "sim" || e.session.received.Size != simSize || e.session.received.Node != "alpha") {
			t.Fatalf("took %s for its peer", hello)
		}
		var h Hello
		if json.Unmarshal(hello, &h) == nil {
			own := s.b.engine.hello()
			if v, w := Decide(own, h), Decide(h, own); !v.Same(w) && own.Node != h.Node {
				t.Fatalf("not mirrored: %+v, %+v for %s", v, w, hello)
			}
		}
	})
}
