// SPDX-License-Identifier: Apache-2.0

// Package failover decides who serves. It knows nothing of blocks.
//
// What stands here is the witness: a tiny third process that keeps, for every
// service, one Record (epoch, holder, pair or alone), and changes it by
// compare-and-set. The layers, from the inside out:
//
//	record.go, request.go the record, and what nodes and witness say to each other
//	seat.go               the pure decision on a query or a request, with time
//	judge.go, heard.go    who may ask for what, and when; what was lost and is known by the nodes
//	witness.go            the witness as a node sees it; the twin in the same process
//	register.go           the records of many services, each durable before it is told
//	recordfile.go         what the file of a record is called and holds
//	slotfile.go           one small file that survives torn writes, bit rot and failed flushes
//	directory.go, clock_linux.go  the seams to the file system and to the time
//	wire.go, frame.go     the messages between a node and the witness, as bytes
//	server.go, gate.go    the witness's end of a connection
//	client.go, line.go    the node's end
//	state.go              what a node keeps of itself, with the same durability
//
// The one invariant: an epoch has one record. Whatever crashes, is repeated,
// delayed or reordered, no two requests that replace the same epoch are
// granted, and an answer that was given is never taken back.
//
// And nobody takes over from a holder whose lease may last: every duration is
// measured by one clock, from the earlier end for who serves and from the later
// one for who waits, with a margin for clocks that do not run alike.
package failover
