// SPDX-License-Identifier: Apache-2.0

// Package nbd is the front end: it speaks the NBD protocol to clients and
// turns what they ask into batches of block.Request for an engine that it
// knows nothing of.
//
// A connection has two lives. Handshake talks with the client about which
// export it wants, on a goroutine of its own, under the limits of a Gate.
// From then on a Session does the transmission: pure bytes in, requests out,
// completions in, bytes out. It has no socket, clock or goroutine; whoever
// drives it reads into Room, calls Received, carries the batch out, and sends
// Output:
//
//	bytes ─ Room/Received ─▶ decode ─▶ validate ─▶ batch ─▶ engine
//	bytes ◀─ Output/Sent ── outbox ◀── reply ◀── Complete ◀──┘
//
// The one invariant: a request that was put in the batch is answered exactly
// once, unless the connection ends first; and its memory stays where it is
// until the engine has completed it, even then.
//
// What a client may send is bounded at every step, and every rule about what
// is a valid request stands in validate.go. Client is the other side, for
// tests, the demonstration and measurements.
//
// The kernel is a client too, one that does no handshake: Kernel tells its
// driver over generic netlink what /dev/nbdN is, and gives it one end of each
// connection. kernelmessage.go has the bytes, kernel.go what they are for,
// kernel_linux.go the socket.
//
// The protocol is that of doc/proto.md in the repository NetworkBlockDevice/nbd
// ("the specification" in the comments here).
package nbd
