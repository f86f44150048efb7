// SPDX-License-Identifier: Apache-2.0

// Package block is the leaf that all rooms may share: what a request is, what
// a batch of them is, and what a disk must be able to do. It knows nothing of
// NBD connections, of replication or of who serves.
//
// A request is born in a front end (nbd), is carried out by an engine (mirror)
// as one or more disk tasks, and returns to its Owner as a completion. Nothing
// here allocates once its pools are filled, and nothing here blocks except the
// methods of Disk.
package block
