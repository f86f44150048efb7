// SPDX-License-Identifier: Apache-2.0

package vip

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

func TestEchoAnswers(t *testing.T) {
	router4, router6 := netip.MustParseAddr("10.0.0.254"), netip.MustParseAddr("fe80::1%eth0")
	packet := func(kind icmp.Type, mark string) []byte {
		return must((&icmp.Message{Type: kind, Body: &icmp.Echo{ID: 7, Seq: 1, Data: []byte(mark)}}).Marshal(nil))
	}
	from := func(ip netip.Addr) net.Addr { return &net.IPAddr{IP: ip.AsSlice(), Zone: ip.Zone()} }
	ours := strings.Repeat("m", 16)
	tests := []struct {
		name   string
		ip     netip.Addr
		packet []byte
		from   net.Addr
		want   bool
	}{
		{"reply", router4, packet(ipv4.ICMPTypeEchoReply, ours), from(router4), true},
		{"reply on an unprivileged socket", router4, packet(ipv4.ICMPTypeEchoReply, ours), &net.UDPAddr{IP: router4.AsSlice()}, true},
		{"reply of IPv6", router6, packet(ipv6.ICMPTypeEchoReply, ours), from(router6), true},
		{"from another", router4, packet(ipv4.ICMPTypeEchoReply, ours), from(netip.MustParseAddr("10.0.0.1")), false},
		{"to another's request", router4, packet(ipv4.ICMPTypeEchoReply, strings.Repeat("x", 16)), from(router4), false},
		{"to a request with nothing in it", router4, packet(ipv4.ICMPTypeEchoReply, ""), from(router4), false},
		{"our own request", router4, packet(ipv4.ICMPTypeEcho, ours), from(router4), false},
		{"of the other family", router4, packet(ipv6.ICMPTypeEchoReply, ours), from(router4), false},
		{"cut off", router4, packet(ipv4.ICMPTypeEchoReply, ours)[:3], from(router4), false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := (echo{ip: test.ip, mark: []byte(ours)}).answers(test.packet, test.from); got != test.want {
				t.Errorf("answers: %v", got)
			}
		})
	}
}
