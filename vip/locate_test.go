// SPDX-License-Identifier: Apache-2.0

package vip

import (
	"net/netip"
	"strings"
	"testing"
)

func TestLocate(t *testing.T) {
	devices := []device{
		{name: "lo", prefixes: prefixes("127.0.0.1/8", "::1/128")},
		{name: "eth0", prefixes: prefixes("10.0.0.1/24", "fd00::1/64", "fe80::1/64", "172.16.0.9/32")},
		{name: "eth1", prefixes: prefixes("10.0.5.1/16", "192.168.9.1/24", "fe80::2/64")},
		{name: "eth2", prefixes: prefixes("192.168.9.2/24", "10.9.0.50/24")},
		{name: "eth3", prefixes: prefixes("10.7.0.100/24")},
	}
	virtual := func(ip netip.Addr) bool {
		return ip == netip.MustParseAddr("10.9.0.50") || ip == netip.MustParseAddr("10.7.0.100")
	}
	tests := []struct {
		address, device, prefix string
		onLink                  bool
		err                     string
	}{
		{address: "10.0.0.100/24", device: "eth0", prefix: "10.0.0.100/32", onLink: true},
		{address: "10.0.0.100/32", device: "eth0", prefix: "10.0.0.100/32", onLink: true}, // the interface knows its subnet
		{address: "10.0.3.100/24", device: "eth1", prefix: "10.0.3.100/32", onLink: true}, // within a wider one
		{address: "fd00::100/64", device: "eth0", prefix: "fd00::100/128", onLink: true},
		{address: "192.168.9.100/24@eth2", device: "eth2", prefix: "192.168.9.100/32", onLink: true},
		{address: "10.50.0.1/24@eth1", device: "eth1", prefix: "10.50.0.1/24"},   // brings the route itself
		{address: "10.7.0.100/24@eth3", device: "eth3", prefix: "10.7.0.100/24"}, // there already, as it is
		{address: "192.168.9.100/24", err: "both eth1 and eth2 have its subnet; hint: name the interface: 192.168.9.100/24@eth1"},
		{address: "fe80::100/64", err: "both eth0 and eth1 have its subnet"},
		{address: "172.16.0.100/24", err: "no interface has its subnet; hint: give one an address in it, or name the interface: 172.16.0.100/24@eth1"},
		{address: "10.9.0.51/24", err: "no interface has its subnet"}, // but for another virtual address
		{address: "10.0.0.100/24@eth9", err: `there is no interface "eth9"; hint: `},
	}
	for _, test := range tests {
		t.Run(test.address, func(t *testing.T) {
			text, name, _ := strings.Cut(test.address, "@")
			p, err := locate(Address{netip.MustParsePrefix(text), name}, devices, virtual)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) || strings.Contains(err.Error(), "\n") {
					t.Fatalf("error %v, want %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if p.device.name != test.device || p.prefix.String() != test.prefix || p.onLink != test.onLink {
				t.Errorf("%s on %s, on link %v", p.prefix, p.device.name, p.onLink)
			}
		})
	}
}

func TestSourceIn(t *testing.T) {
	d := device{prefixes: prefixes("10.0.0.100/32", "10.0.0.1/24", "fe80::1/64", "fd00::1/64")}
	virtual := func(ip netip.Addr) bool { return ip == virtual4.IP() }
	for ask, want := range map[string]string{
		"10.0.0.100": "10.0.0.1",
		"10.1.0.100": "0.0.0.0",
		"fd00::100":  "fd00::1",
		"fd01::100":  "fe80::1",
	} {
		if got := sourceIn(d, netip.MustParseAddr(ask), virtual); got.String() != want {
			t.Errorf("asks for %s from %s, want %s", ask, got, want)
		}
	}
	if got := sourceIn(device{}, virtual6.IP(), virtual); got != netip.IPv6Unspecified() {
		t.Errorf("asks from %s, want from none", got)
	}
}
