// SPDX-License-Identifier: Apache-2.0

package vip

import (
	"fmt"
	"net/netip"
)

// Address is an address that moves with the service.
type Address struct {
	Prefix    netip.Prefix // the address itself, with the length of its subnet
	Interface string       // empty: the one that has the subnet
}

// IP is the address without its subnet.
func (a Address) IP() netip.Addr { return a.Prefix.Addr() }

// String writes ADDRESS/BITS or ADDRESS/BITS@INTERFACE, as the configuration
// has it.
func (a Address) String() string {
	if a.Interface == "" {
		return a.Prefix.String()
	}
	return a.Prefix.String() + "@" + a.Interface
}

func (a Address) validate() error {
	if ip := a.IP(); !a.Prefix.IsValid() || ip.Is4In6() || ip.IsUnspecified() || ip.IsMulticast() {
		return &hintError{fmt.Errorf("%s cannot be a virtual address", a), "give one host's, with its subnet, e.g. 10.0.0.100/24"}
	}
	return nil
}
