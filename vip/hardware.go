// SPDX-License-Identifier: Apache-2.0

package vip

import (
	"fmt"
	"net"
)

// maxHardware bounds what a node says of itself: a host of containers has
// interfaces by the hundred, and all this goes into a message to the peer.
const maxHardware = 32

// Hardware returns the hardware addresses from which this node may answer for
// the virtual ones, each once, at most 32: first of the interfaces on which
// they belong, then of the others that have an address, since Linux answers on
// every interface for the addresses of all. The peer needs them for Judge.
func (m *Manager) Hardware() ([]net.HardwareAddr, error) {
	devices, err := m.network.devices()
	if err != nil {
		return nil, fmt.Errorf("list hardware addresses: %w", err)
	}
	var own []net.HardwareAddr
	add := func(d device) {
		if d.speaks() && len(own) < maxHardware && !contains(own, d.hardware) {
			own = append(own, d.hardware)
		}
	}
	for _, a := range m.config.Addresses {
		if p, err := locate(a, devices, m.isVirtual); err == nil {
			add(p.device)
		}
	}
	for _, d := range devices {
		if len(d.prefixes) > 0 {
			add(d)
		}
	}
	return own, nil
}
