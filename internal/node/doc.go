// SPDX-License-Identifier: Apache-2.0

// Package node joins the rooms of one server: the configuration, the keys, the
// disks, a loop and an engine for each volume, its NBD export, the connections
// to the peer and to the witness, and the local API. Two nodes can live in one
// process.
//
// A volume belongs to the thread of its loop; whoever wants something of it
// posts. A service belongs to one goroutine, which is the only one that asks
// the witness: it answers its volumes' questions (mirror.Arbiter), one at a
// time, so that a service never has two requests under way.
package node
