// SPDX-License-Identifier: Apache-2.0

package vip

import (
	"errors"
	"fmt"
	"net/netip"
)

// place is where a virtual address belongs, and how it is put there.
type place struct {
	Address
	device device
	prefix netip.Prefix // as the interface gets it
	onLink bool         // another address of the interface has the subnet
}

// locate finds the interface for a virtual address: the one that was named,
// else the one that has the subnet, which is the one with the longest prefix
// around it. Virtual addresses have no say in it: they come and go.
//
// Where another address brings the subnet, the virtual one is added as a
// single host. With the length of its subnet it could become the kernel's
// first address in it, be the source of the node's own connections, and take
// the node's real address along when it goes.
func locate(a Address, devices []device, virtual func(netip.Addr) bool) (place, error) {
	d, bits, err := deviceFor(a, devices, virtual)
	if err != nil {
		return place{}, err
	}
	p := place{Address: a, device: d, prefix: a.Prefix, onLink: bits > 0}
	if there, ok := d.prefixOf(a.IP()); ok {
		p.prefix = there // from an earlier run: the kernel finds it only by its length
	} else if p.onLink {
		p.prefix = netip.PrefixFrom(a.IP(), a.IP().BitLen())
	}
	return p, nil
}

// deviceFor returns the interface, and how long the prefix is that the address
// has in common with it, 0 without.
func deviceFor(a Address, devices []device, virtual func(netip.Addr) bool) (device, int, error) {
	if a.Interface != "" {
		d, ok := deviceNamed(devices, a.Interface)
		if !ok {
			return d, 0, &hintError{fmt.Errorf("there is no interface %q", a.Interface),
				"`ip link` shows which there are; correct `ip`"}
		}
		return d, subnetBits(a.IP(), d, virtual), nil
	}
	var found, rival device
	longest := 0
	for _, d := range devices {
		switch bits := subnetBits(a.IP(), d, virtual); {
		case bits > longest:
			found, rival, longest = d, device{}, bits
		case bits == longest && bits > 0:
			rival = d
		}
	}
	if longest == 0 {
		return found, 0, &hintError{errors.New("no interface has its subnet"),
			fmt.Sprintf("give one an address in it, or name the interface: %s@eth1", a.Prefix)}
	}
	if rival.name != "" {
		return found, 0, &hintError{fmt.Errorf("both %s and %s have its subnet", found.name, rival.name),
			fmt.Sprintf("name the interface: %s@%s", a.Prefix, found.name)}
	}
	return found, longest, nil
}

// subnetBits is the length of the longest subnet of an interface that the
// address lies in, 0 when it lies in none.
func subnetBits(ip netip.Addr, d device, virtual func(netip.Addr) bool) int {
	longest := 0
	for _, p := range d.prefixes {
		if !p.IsSingleIP() && p.Contains(ip) && !virtual(p.Addr()) {
			longest = max(longest, p.Bits())
		}
	}
	return longest
}

// sourceIn is the address with which this node asks for another one on an
// interface: its own in the same subnet, for IPv6 else its link-local one,
// else none.
func sourceIn(d device, ip netip.Addr, virtual func(netip.Addr) bool) netip.Addr {
	source := unspecified(ip)
	for _, p := range d.prefixes {
		switch own := p.Addr(); {
		case own.Is4() != ip.Is4() || virtual(own):
		case !p.IsSingleIP() && p.Contains(ip):
			return own
		case own.Is6() && own.IsLinkLocalUnicast():
			source = own
		}
	}
	return source
}

// unspecified is the address that stands for none in the family of ip.
func unspecified(ip netip.Addr) netip.Addr {
	if ip.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}
