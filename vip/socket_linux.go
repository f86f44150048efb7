// SPDX-License-Identifier: Apache-2.0

package vip

import (
	"fmt"
	"net"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
)

func (kernel) open(d device, p protocol) (socket, error) {
	config := packet.Config{}
	if p == protocolIPv6 { // all traffic of the family would come
		filter, err := bpf.Assemble(advertisementsOnly)
		if err != nil {
			return nil, fmt.Errorf("assemble filter: %w", err)
		}
		config.Filter = filter
	}
	i := net.Interface{Index: d.index, Name: d.name, HardwareAddr: d.hardware}
	c, err := packet.Listen(&i, packet.Raw, int(p), &config)
	if err != nil {
		return nil, permitted(fmt.Errorf("open packet socket on %s: %w", d.name, err))
	}
	return packetSocket{c}, nil
}

// advertisementsOnly lets neighbour advertisements pass: a filter over the
// frame, whose Ethernet header has 14 bytes.
var advertisementsOnly = []bpf.Instruction{
	bpf.LoadAbsolute{Off: 14 + 6, Size: 1}, // next header
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: icmpv6, SkipTrue: 3},
	bpf.LoadAbsolute{Off: 14 + ipv6HeaderLength, Size: 1}, // type
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 136, SkipTrue: 1},
	bpf.RetConstant{Val: 1 << 16},
	bpf.RetConstant{Val: 0},
}

// packetSocket is a raw packet(7) socket bound to one interface.
type packetSocket struct{ conn *packet.Conn }

func (s packetSocket) send(frame []byte) error {
	_, err := s.conn.WriteTo(frame, &packet.Addr{HardwareAddr: frame[:6]})
	return err
}

func (s packetSocket) receive(buffer []byte, deadline time.Time) (int, error) {
	if err := s.conn.SetReadDeadline(deadline); err != nil {
		return 0, err
	}
	n, _, err := s.conn.ReadFrom(buffer)
	return n, err
}

func (s packetSocket) close() error { return s.conn.Close() }
