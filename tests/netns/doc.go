// SPDX-License-Identifier: Apache-2.0

// Package netns shows failover between machines: two nodes, a witness and a
// client, each in a network namespace with cables of its own, run the real
// program, and lose cables, directions, processes and whole hosts.
//
//	       10.77.1.0/24
//	   .───────eth1───────.
//	alpha .1            beta .2      witness .3   client .9   router .254
//	   '────eth0────.      '──eth0──.   |            |           |
//	                '───────────────'───'────────────'───────────'
//	       10.77.0.0/24, the virtual address is 10.77.0.100
//
// Both networks are bridges in a namespace of their own, the switch: there a
// cable is pulled, and frames from one port to another are dropped, one way and
// silently (nftables).
//
// The client writes to the export at the virtual address every 10 ms, over TLS,
// and connects anew when something breaks. It records when each operation began,
// when it ended and what the answer was, and porcupine decides whether one
// register for each block could have given these answers. An operation without an
// answer may have happened at any time since, or not at all.
//
// Namespaces need root, and these tests need minutes: they run by `make netns`,
// the seeded chaos in `make prove`, and the measurements by
// `make bench-failover`. Nothing is left behind, also when a test is killed: the
// namespaces have no names, and the processes die with the thread that started
// them.
package netns
