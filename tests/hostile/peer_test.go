// SPDX-License-Identifier: Apache-2.0

//go:build linux

package hostile

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/internal/trust"
	"github.com/twinbd/twinbd/nbd"
	"github.com/twinbd/twinbd/tests/harness"
)

// Strangers where the peer connects: the pair stays one, and a peer that restarts
// in the middle of it gets in.
func TestStrangersAtThePeerPort(t *testing.T) {
	lab := harness.NewPair(t, harness.Options{})
	own, err := foreignKeys(t)
	if err != nil {
		t.Fatal(err)
	}
	clientHello := []byte{22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3}
	all := append(attacks(clientHello),
		attack{"foreign keys", 200, 60, func(c net.Conn, _ *rand.Rand) {
			c.SetDeadline(time.Now().Add(5 * time.Second))
			s := tls.Client(c, own)
			if s.Handshake() == nil {
				s.Read(make([]byte, 1))
			}
		}},
		attack{"TLS, and no key", 200, 60, func(c net.Conn, _ *rand.Rand) {
			c.SetDeadline(time.Now().Add(5 * time.Second))
			s := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
			if s.Handshake() == nil {
				s.Read(make([]byte, 1))
			}
		}})
	h := serveOneself(lab.Alpha.Dial(t, data))
	for i, a := range all {
		n := lab.Nodes()[i%2]
		w := watch(t, n.Name, &n.Process)
		dial := func() (net.Conn, error) { return net.DialTimeout("tcp", n.Address(), time.Second) }
		a.carryOut(t, dial, func() {
			w.look(t)
			harness.Elapse(10 * time.Millisecond)
		})
		w.within(t, bounds{memory: 96 << 20, descriptors: 140, log: 16 << 10})
	}
	for _, n := range lab.Nodes() {
		if s := n.Service(t); s.State != control.Primary && s.State != control.Secondary {
			t.Errorf("%s is %s: %s", n.Name, s.State, s.Reason)
		}
	}

	// The secondary restarts while strangers hold as many places as they can get,
	// at both nodes. They come from the same address as the peer, and in vain.
	var lift []func()
	for _, n := range lab.Nodes() {
		lift = append(lift, besiege(t, 200, func() (net.Conn, error) { return net.DialTimeout("tcp", n.Address(), time.Second) }))
	}
	lab.Beta.Kill(t)
	lab.Alpha.WaitState(t, control.Alone)
	lab.Beta.Start(t)
	began := time.Now()
	lab.WaitPaired(t, lab.Alpha)
	t.Logf("a pair again %v after the secondary was started in the middle of a siege", time.Since(began).Round(time.Millisecond))
	for _, f := range lift {
		f()
	}
	h.end(t)
}

// madPeer speaks to alpha with beta's key.
type madPeer struct {
	t     *testing.T
	lab   *harness.Lab
	keys  *trust.Keys
	lines int
}

func (m *madPeer) dial(kind, link string) (net.Conn, error) {
	raw, err := net.DialTimeout("tcp", m.lab.Alpha.Address(), time.Second)
	if err != nil {
		return nil, err
	}
	raw.SetDeadline(time.Now().Add(patience))
	c := tls.Client(raw, m.keys.Client("alpha"))
	hello := map[string]any{"protocol": 1, "cluster": "lab", "from": "beta", "kind": kind, "volume": data, "link": link}
	if err := say(c, hello); err != nil {
		raw.Close()
		return nil, err
	}
	var answer struct{ Error string }
	if err := hear(c, &answer); err != nil || answer.Error != "" {
		raw.Close()
		return nil, fmt.Errorf("%s: %w %s", kind, err, answer.Error)
	}
	return c, nil
}

func say(c net.Conn, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
	return err
}

func hear(c net.Conn, v any) error {
	var head [2]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return err
	}
	b := make([]byte, binary.BigEndian.Uint16(head[:]))
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

// frame is one between the nodes, by docs/PROTOCOL.md.
func frame(kind byte, session uint64, payload []byte) []byte {
	table := crc32.MakeTable(crc32.Castagnoli)
	b := append([]byte("tbd1"), kind, 0, 0, 0)
	b = binary.BigEndian.AppendUint64(b, session)
	b = binary.BigEndian.AppendUint64(b, 0)
	b = binary.BigEndian.AppendUint32(b, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(payload, table))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, table))
	return append(b, payload...)
}

const (
	frameHello = 1
	framePing  = 4
)

// link makes both connections of a volume.
func (m *madPeer) link() (data, bulk net.Conn, err error) {
	m.lines++
	id := fmt.Sprintf("%032x", m.lines)
	if data, err = m.dial("data", id); err != nil {
		return nil, nil, err
	}
	if bulk, err = m.dial("bulk", id); err != nil {
		data.Close()
		return nil, nil, err
	}
	return data, bulk, nil
}

// meet says hello as beta would, with a fresh disk, and returns the session.
func (m *madPeer) meet(c net.Conn) (session uint64, err error) {
	var head [40]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return 0, err
	}
	b := make([]byte, binary.BigEndian.Uint32(head[28:]))
	if _, err := io.ReadFull(c, b); err != nil {
		return 0, err
	}
	var h map[string]any
	if err := json.Unmarshal(b, &h); err != nil {
		return 0, err
	}
	session = uint64(h["Proposal"].(float64))<<32 | 7
	h["Node"], h["Peer"], h["State"], h["Proposal"], h["Incarnation"], h["Primary"] = "beta", "alpha", "fresh", 7, 99, false
	h["VolumeID"] = make([]int, 16)
	if b, err = json.Marshal(h); err != nil {
		return 0, err
	}
	_, err = c.Write(frame(frameHello, 0, b))
	return session, err
}

// A peer with the right key that has lost its mind: the node serves on, alone, with
// bounded memory; and when the peer is itself again they are a pair.
func TestPeerGoneMad(t *testing.T) {
	lab := harness.NewPair(t, harness.Options{})
	c := lab.Alpha.Dial(t, data)
	if err := exchange(c, 0, 1); err != nil {
		t.Fatal(err)
	}
	lab.Beta.Stop(t)
	lab.Alpha.WaitState(t, control.Alone)
	keys, err := trust.Load(lab.Keys(), "beta")
	if err != nil {
		t.Fatal(err)
	}
	m := &madPeer{t: t, lab: lab, keys: keys}
	h := serveOneself(c)
	rng := rand.New(rand.NewPCG(3, 3))
	w := watch(t, "alpha", &lab.Alpha.Process)
	for name, do := range map[string]func(t *testing.T){
		"garbage in place of frames": func(t *testing.T) {
			for range 30 {
				data, bulk, err := m.link()
				if err != nil {
					t.Fatal(err)
				}
				junk := make([]byte, 64<<10)
				for i := range junk {
					junk[i] = byte(rng.Uint32())
				}
				data.Write(junk)
				drain(data)
				data.Close()
				bulk.Close()
			}
		},
		"right frames in the wrong place": func(t *testing.T) {
			for kind := byte(0); kind < 30; kind++ {
				data, bulk, err := m.link()
				if err != nil {
					t.Fatal(err)
				}
				session, err := m.meet(data)
				if err != nil {
					t.Fatal(err)
				}
				data.Write(frame(kind, session, make([]byte, rng.IntN(100))))
				data.Write(frame(frameHello, 0, []byte("{}")))
				drain(data)
				data.Close()
				bulk.Close()
			}
		},
		"asks and reads no answers": func(t *testing.T) {
			data, bulk, err := m.link()
			if err != nil {
				t.Fatal(err)
			}
			defer bulk.Close()
			defer data.Close()
			session, err := m.meet(data)
			if err != nil {
				t.Fatal(err)
			}
			pings := []byte(strings.Repeat(string(frame(framePing, session, nil)), 1000))
			sent := 0
			for ; sent < 20_000_000; sent += 1000 {
				if _, err := data.Write(pings); err != nil {
					break // its session has ended
				}
				if sent%100_000 == 0 {
					w.look(t)
				}
			}
			if sent == 20_000_000 {
				t.Error("the session went on")
			}
			t.Logf("the session ended after %d pings", sent)
		},
		"beats without end": func(t *testing.T) {
			c, err := m.dial("beat", "")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(3 * time.Second))
			for i := 0; ; i++ {
				beat := map[string]any{"service": harness.Service, "about": map[string]any{
					"config": fmt.Sprint("digest ", i), "reason": strings.Repeat("x", 2000), "time": time.Unix(int64(i%2)*4e9, 0)}}
				if say(c, beat) != nil {
					break
				}
			}
		},
		"connections of every kind": func(t *testing.T) {
			var open []net.Conn
			for i := range 300 {
				kind := []string{"beat", "call", "relay", "data"}[i%4]
				c, err := m.dial(kind, fmt.Sprintf("%032x", i))
				if err != nil {
					t.Fatalf("connection %d: %v", i, err)
				}
				open = append(open, c)
				w.look(t)
			}
			for _, c := range open {
				c.Close()
			}
		},
	} {
		t.Run(name, do)
		w.look(t)
		if !lab.Alpha.Running() {
			t.Fatalf("alpha has ended:\n%s", lab.Alpha.Tail(20))
		}
		newcomer(t, func(ctx context.Context) (*nbd.Client, error) { return nbd.Dial(ctx, lab.Alpha.URI(data), nil) })
	}
	w.within(t, bounds{memory: 192 << 20, descriptors: 80, log: 256 << 10})
	lab.Beta.Start(t)
	lab.WaitPaired(t, lab.Alpha)
	h.end(t)
	lab.SameDisks(t)
}
