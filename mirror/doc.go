// SPDX-License-Identifier: Apache-2.0

// Package mirror is the replication engine of one volume on two disks: a local
// one and the peer's. It takes batches of client requests, frames from the
// peer, finished disk tasks and ticks, and gives back frames, disk tasks and
// completions. It does no I/O, reads no clock and starts no goroutine, so the
// same code runs on a polling thread and in one seeded event queue under test.
//
// It is not who decides which node serves: before it acknowledges anything
// that the peer does not have, it asks an Arbiter. It knows nothing of NBD.
//
// # The life of a write
//
//	Submit     admit.go     cut to pieces, range lock (rule 7)
//	           intents.go   wait until the intents of its regions are durable (rule 1)
//	launch     write.go     wait for room (backlog.go, window.go), then into the run for
//	                        the peer, then a task for the local disk
//	finished   write.go     the local disk has taken it
//	acks       window.go    the peer says that its disk has (rule 2)
//	           flush.go     FUA: wait for a flush of both disks (rule 3)
//	           alone.go     peer lost: dirty, right held, generation durable (rules 4, 9, 16)
//	complete   engine.go    to the request's Owner
//
// # The two invariants
//
// Cover: every block whose durable content may differ between the nodes is
// dirty here, or inside a durable intent, or in the log of writes that the peer
// has not flushed (marks.go), which turns dirty in the same step in which the
// peer is lost. Marking too much is harmless; a mark is cleared in three places
// only: resync_source.go (the target said durable), resync_target.go (the source
// has it durably) and intents.go (both disks are flushed).
//
// Fence: nothing is acknowledged alone before the arbiter has granted it and a
// generation of our own is durable (alone.go).
//
// # States of the session with the peer
//
//	Disconnected → Draining → Greeting → Comparing → Resyncing → Mirroring
//	      ↑____________|__________|___________|__________|___________|
//
// Draining waits until the disk tasks of the last session have ended (rule
// 14) and what the node will say of itself is durable. Greeting exchanges Hello
// and Verdict (meet.go, decide.go). Comparing brings the union of the dirty sets
// to the source (rule 6). Resyncing copies while writes already go to both. In
// Mirroring the disks are alike. Beside them stands Hosting: the disk of the
// primary has failed, and its peer carries out what clients ask (remote.go).
//
// # Reading order
//
// engine, op, admit, intents, write, backlog, window, flush, alone: a request's way.
// session, meet, decide, dispatch, frame, link: the peer. follower: what a
// secondary does. resync, verify, remote: the long stories. locks, marks, meta:
// what they stand on.
package mirror
