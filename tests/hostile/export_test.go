// SPDX-License-Identifier: Apache-2.0

//go:build linux

package hostile

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/twinbd/twinbd/nbd"
	"github.com/twinbd/twinbd/tests/harness"
)

// What a client sends, by the specification.
const (
	optionMagic  = 0x49484156454F5054
	requestMagic = 0x25609513
)

func option(id uint32, data []byte) []byte {
	b := binary.BigEndian.AppendUint64(nil, optionMagic)
	b = binary.BigEndian.AppendUint32(b, id)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

// clientHello is a whole handshake up to GO.
func clientHello() []byte {
	flags := binary.BigEndian.AppendUint32(nil, 3)
	body := append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...)
	return append(flags, option(7, append(body, 0, 0))...)
}

func request(kind uint16, cookie, offset uint64, length uint32) []byte {
	b := binary.BigEndian.AppendUint32(nil, requestMagic)
	b = binary.BigEndian.AppendUint16(b, 0)
	b = binary.BigEndian.AppendUint16(b, kind)
	b = binary.BigEndian.AppendUint64(b, cookie)
	b = binary.BigEndian.AppendUint64(b, offset)
	return binary.BigEndian.AppendUint32(b, length)
}

// enter shakes hands and leaves the connection in transmission.
func enter(c net.Conn) error {
	if _, err := c.Write(clientHello()); err != nil {
		return err
	}
	// The greeting, then replies to GO; the last one is an ACK without data.
	if _, err := io.ReadFull(c, make([]byte, 18)); err != nil {
		return err
	}
	for {
		var head [20]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return err
		}
		kind := binary.BigEndian.Uint32(head[12:])
		if _, err := io.ReadFull(c, make([]byte, binary.BigEndian.Uint32(head[16:]))); err != nil {
			return err
		}
		switch {
		case kind == 1:
			return nil
		case kind>>31 != 0:
			return errors.New("refused")
		}
	}
}

// Strangers at an export: on a Unix socket, on TCP, and with TLS under way.
func TestStrangersAtTheExport(t *testing.T) {
	for name, options := range map[string]harness.Options{"unix": {}, "tcp": {TCP: true}} {
		t.Run(name, func(t *testing.T) {
			lab := harness.NewPair(t, options)
			network, address := lab.Alpha.ExportAddress(data)
			dial := func() (net.Conn, error) { return net.DialTimeout(network, address, time.Second) }
			let := func(ctx context.Context) (*nbd.Client, error) { return nbd.Dial(ctx, lab.Alpha.URI(data), nil) }
			all := append(attacks(clientHello()),
				attack{"options without end", 300, 50, func(c net.Conn, rng *rand.Rand) {
					c.Write([]byte{0, 0, 0, 3})
					for range 300 {
						c.Write(option(uint32(rng.IntN(12)), make([]byte, rng.IntN(9000))))
					}
				}},
				attack{"asks for lists and reads none", 300, 100, func(c net.Conn, _ *rand.Rand) {
					c.Write([]byte{0, 0, 0, 3})
					for range 250 {
						c.Write(option(3, nil))
					}
				}},
				attack{"TLS that stalls", 500, 200, func(c net.Conn, _ *rand.Rand) {
					c.Write(append([]byte{0, 0, 0, 3}, option(5, nil)...))
					c.Write([]byte{22, 3, 1, 1, 0})
				}},
				attack{"shakes hands and asks for nothing", 600, 200, func(c net.Conn, _ *rand.Rand) {
					c.SetReadDeadline(time.Now().Add(time.Second))
					enter(c)
				}},
			)
			if name == "unix" {
				all = all[3:] // what differs by what is sent is tried once
			}
			h := serveOneself(lab.Alpha.Dial(t, data))
			for _, a := range all {
				w := watch(t, "alpha", &lab.Alpha.Process)
				a.carryOut(t, dial, func() {
					w.look(t)
					newcomer(t, let)
				})
				w.within(t, bounds{memory: 128 << 20, descriptors: 420, log: 16 << 10})
			}
			h.end(t)
			lab.WaitPaired(t, lab.Alpha)
		})
	}
}

// Clients that ask for as much as they can and read none of it. They wait; others
// do not, and memory has a bound.
func TestClientsThatNeverRead(t *testing.T) {
	lab := harness.NewPair(t, harness.Options{TCP: true, Size: 64 << 20})
	c := lab.Alpha.Dial(t, data)
	for at := int64(0); at < lab.Size(); at += 1 << 20 { // nothing is a hole
		p := make([]byte, 1<<20)
		for i := range p {
			p[i] = byte(i*7) | 1
		}
		if err := c.WriteAt(p, at, 0); err != nil {
			t.Fatal(err)
		}
	}
	w := watch(t, "alpha", &lab.Alpha.Process)
	h := serveOneself(c)
	const clients = 24
	for i := range clients {
		network, address := lab.Alpha.ExportAddress(data)
		conn, err := net.Dial(network, address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := enter(conn); err != nil {
			t.Fatalf("client %d: %v", i, err)
		}
		conn.SetWriteDeadline(time.Now().Add(2 * time.Second))
		for k := range uint64(200) {
			if _, err := conn.Write(request(0, k, (k*7%64)<<20, 1<<20)); err != nil {
				break // it is let wait
			}
		}
		w.look(t)
	}
	newcomer(t, func(ctx context.Context) (*nbd.Client, error) { return nbd.Dial(ctx, lab.Alpha.URI(data), nil) })
	for range 20 {
		w.look(t)
		harness.Elapse(50 * time.Millisecond)
	}
	h.end(t)
	// 256 MiB for all of them, a message for each, and what the collector has not
	// taken yet; without the common bound it would be 24 times 96 MiB.
	t.Logf("%d clients that read nothing", clients)
	if more := w.most.Memory - w.before.Memory; more > 640<<20*harness.MemoryFactor {
		t.Errorf("alpha took %d MiB more", more>>20)
	}
	t.Logf("alpha: before %s; at most %s", w.before, w.most)
}

// With keys, whoever has none of the cluster's is a stranger at a TLS export as
// well, however much he shakes hands.
func TestStrangersWithForeignKeys(t *testing.T) {
	lab := harness.NewPair(t, harness.Options{TCP: true})
	own, err := foreignKeys(t)
	if err != nil {
		t.Fatal(err)
	}
	network, address := lab.Alpha.ExportAddress(data)
	w := watch(t, "alpha", &lab.Alpha.Process)
	h := serveOneself(lab.Alpha.Dial(t, data))
	a := attack{"foreign keys", 150, 40, func(c net.Conn, _ *rand.Rand) {
		c.SetDeadline(time.Now().Add(5 * time.Second))
		c.Write(append([]byte{0, 0, 0, 3}, option(5, nil)...))
		if _, err := io.ReadFull(c, make([]byte, 18+20)); err != nil {
			return
		}
		s := tls.Client(c, own)
		if s.Handshake() == nil {
			s.Read(make([]byte, 1))
		}
	}}
	a.carryOut(t, func() (net.Conn, error) { return net.DialTimeout(network, address, time.Second) }, func() {
		w.look(t)
		newcomer(t, func(context.Context) (*nbd.Client, error) { return lab.Alpha.DialTLS(lab.Keys(), "admin", data) })
	})
	h.end(t)
	w.within(t, bounds{memory: 128 << 20, descriptors: 420, log: 16 << 10})
}
