// SPDX-License-Identifier: Apache-2.0

// Package vip moves the virtual IP addresses of a service: it takes them,
// renews them, tells the network where they are, asks the network where they
// are, and gives them up. Who should have them is decided elsewhere, and so is
// when.
//
// The addresses carry a lifetime in the kernel, which the owner of a Manager
// renews. A daemon that died, hangs or was stopped loses them by itself, with
// nobody's help; this is what makes a takeover by the peer safe for clients.
//
// In the order in which one reads them:
//
//	vip.go        Manager: New, Take, Renew, Leave, Close
//	address.go    what an address is
//	locate.go     which interface it belongs on: pure
//	packet.go     announcements, questions and answers as frames: pure
//	announce.go   the announcer: a burst, then for ever
//	probe.go      Probe and Resolve: who answers for the addresses; Judge
//	watch.go      Links and Watch: do the interfaces carry
//	hardware.go   by which hardware addresses the peer knows this node
//	ping.go       Ping: is a router there
//	network.go    the seam to the kernel; network_linux.go, socket_linux.go,
//	              reset_linux.go and network_other.go are what is behind it
//
// The invariant: nothing is announced that the kernel does not hold for this
// node at that moment, or whose time has run out on a clock that runs during
// suspend. A node that wakes up late says nothing.
//
// Both families are treated alike as far as they are alike. Questions are ARP
// requests and neighbour solicitations of our own over packet sockets, not the
// kernel's: its cache would answer with what was, and asking must neither need
// an address in the subnet nor change that cache.
//
// It needs Linux, CAP_NET_ADMIN and CAP_NET_RAW. Elsewhere New refuses any
// address, and a Manager of none does nothing.
package vip
