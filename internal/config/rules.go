// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net"
	"net/netip"
	"strings"
)

// checkRules holds what one value cannot know of another: nothing is used twice.
func (r *reader) checkRules() {
	r.checkVirtualIPs()
	r.checkVolumeNames()
	r.checkAddresses()
	r.checkClaims()
}

// checkAddresses refuses an address that is written for two of the three
// machines, or twice for one.
func (r *reader) checkAddresses() {
	owner := map[string]string{}
	claim := func(address, key string) {
		if other, taken := owner[address]; taken {
			r.fault(key, "", "%s is already in %s", address, other)
			return
		}
		owner[address] = key
	}
	for _, n := range r.cfg.Nodes {
		for _, a := range n.Address {
			claim(a.String(), "node."+n.Name+".address")
		}
	}
	for _, a := range r.cfg.Witness.Address {
		claim(a, "witness.address")
	}
}

func (r *reader) checkVolumeNames() {
	first := map[string]string{}
	for _, service := range r.cfg.Services {
		for _, v := range service.Volumes {
			key := volumeKey(&v)
			if other, taken := first[v.Name]; taken {
				r.fault(key, "", "the name is already that of %s; volume names are unique in a cluster", other)
				continue
			}
			first[v.Name] = key
		}
	}
}

// checkVirtualIPs refuses an address that two services, or a service and a
// machine, would both have.
func (r *reader) checkVirtualIPs() {
	owner := map[netip.Addr]string{}
	for _, n := range r.cfg.Nodes {
		for _, a := range n.Address {
			owner[a.Addr()] = "node." + n.Name + ".address"
		}
	}
	for _, text := range r.cfg.Witness.Address {
		host, _, _ := net.SplitHostPort(text)
		if ip, err := netip.ParseAddr(host); err == nil {
			owner[ip.Unmap()] = "witness.address"
		}
	}
	for _, ip := range r.cfg.Witness.Ping {
		owner[ip] = "witness.ping"
	}
	for _, service := range r.cfg.Services {
		key := "service." + service.Name + ".ip"
		for _, ip := range service.IP {
			if other, taken := owner[ip.Prefix.Addr()]; taken {
				r.fault(key, "", "%s is already in %s", ip.Prefix.Addr(), other)
				continue
			}
			owner[ip.Prefix.Addr()] = key
		}
	}
}

func (r *reader) fault(key, hint, format string, args ...any) {
	r.doc.report(r.doc.line(key), key, hint, format, args...)
}

func volumeKey(v *Volume) string {
	return strings.Join([]string{"service", v.Service, "volume", v.Name}, ".")
}
