// SPDX-License-Identifier: Apache-2.0

// Package failover decides who serves. It knows nothing of blocks.
//
// What stands here is the witness: a tiny third process that keeps, for every
// service, one Record (epoch, holder, pair or alone), and changes it by
// compare-and-set. The layers, from the inside out:
//
//	record.go, apply.go   the record and the pure decision on a request
//	witness.go            the witness as a node sees it; the twin in the same process
//	register.go           the records of many services, each durable before it is told
//	recordfile.go         what the file of a record is called and holds
//	slotfile.go           one small file that survives torn writes, bit rot and failed flushes
//	directory.go          the seam to the file system
//	wire.go, frame.go     the messages between a node and the witness, as bytes
//	server.go, gate.go    the witness's end of a connection
//	client.go, line.go    the node's end
//	state.go              what a node keeps of itself, with the same durability
//
// The one invariant: an epoch has one record. Whatever crashes, is repeated,
// delayed or reordered, no two requests that replace the same epoch are
// granted, and an answer that was given is never taken back.
//
// Time is not decided here yet: how long a holder must have been silent, and
// when a request is too old, need the failover state machine. The messages
// already carry what that takes: the number of the last answer seen, whether the
// asker serves, and the highest epoch that it knows.
package failover
