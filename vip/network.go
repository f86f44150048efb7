// SPDX-License-Identifier: Apache-2.0

package vip

import (
	"io"
	"net"
	"net/netip"
	"time"
)

// network is all that this package wants from the kernel. Calls may overlap.
type network interface {
	// devices lists the interfaces as they are now.
	devices() ([]device, error)

	// assign gives an interface an address, or a new lifetime to one that it
	// has. onLink says that another address brings the route to the subnet.
	assign(d device, prefix netip.Prefix, lifetime time.Duration, onLink bool) error

	// remove takes an address away. One that is not there is no error.
	remove(d device, prefix netip.Prefix) error

	// reset ends the TCP connections whose local address is one of these, on
	// both sides where the peer can still be told. It returns how many.
	reset(ips []netip.Addr) (int, error)

	// open starts to send and receive frames of one protocol on an interface.
	open(d device, p protocol) (socket, error)

	// changes returns a stream from which a Read returns, with bytes of no
	// meaning, after an interface may have changed; not so for its addresses,
	// which are renewed all the time. Close ends a Read that waits.
	changes() (io.ReadCloser, error)

	// uptime is a clock that never jumps and runs during suspend.
	uptime() time.Duration
}

// socket sends and receives Ethernet frames. Only receive blocks, and nothing
// overlaps.
type socket interface {
	send(frame []byte) error

	// receive waits for a frame until the deadline, then returns an error
	// that wraps os.ErrDeadlineExceeded.
	receive(buffer []byte, deadline time.Time) (int, error)

	// close waits for the kernel, some tens of milliseconds.
	close() error
}

// protocol is an EtherType, in host byte order.
type protocol uint16

// device is a network interface at one moment.
type device struct {
	name     string
	index    int
	hardware net.HardwareAddr // empty: none
	up       bool             // set up, and its link carries
	silent   bool             // nobody is asked for addresses there: loopback, tunnels
	prefixes []netip.Prefix   // its addresses, each with the length of its subnet
}

// speaks says whether ARP and neighbour discovery mean anything there.
func (d device) speaks() bool { return len(d.hardware) == 6 && !d.silent }

// prefixOf is the address as the interface has it.
func (d device) prefixOf(ip netip.Addr) (netip.Prefix, bool) {
	for _, p := range d.prefixes {
		if p.Addr() == ip {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// deviceNamed finds an interface in a list.
func deviceNamed(devices []device, name string) (device, bool) {
	for _, d := range devices {
		if d.name == name {
			return d, true
		}
	}
	return device{}, false
}
