// SPDX-License-Identifier: Apache-2.0

// Package power cuts the power of real nodes under load, at random moments:
//
//	go test ./tests/power -v -args -power.cuts 100 -power.seed 7
//
// Killing a process is no power cut: the kernel keeps what the process had written.
// So every disk of a node, the one with its own state included, is a drive: an NBD
// server in the test, with a volatile write cache. nbdfuse shows it as a file, a
// loop device with direct I/O that file as a block device, and that is what the node
// uses. A flush of the node reaches the drive, and makes durable what it has taken.
// A cut takes, sector by sector, some of the rest away, in no order, and all that
// the kernel had not even written yet.
//
// A cut of a node is, in this order: its drives lose what they lose and answer
// nothing any more; its process is killed; what it still asked of the drives fails,
// for nobody to see; its block devices and the kernel's pages of them are gone.
//
// One pair lives through all cuts, with two volumes. On one a ledger writes numbered
// sectors and remembers what was acknowledged and what was flushed; on the other is
// an ext4 with an SQLite database, whose commits are counted outside. Nobody tells
// the nodes who is to serve. After each round the ledger holds against who serves,
// both disks are alike and have everything on stable storage, and fsck and SQLite
// find nothing wrong.
//
// It needs root, FUSE and loop devices. A failure prints its seed and keeps the
// directory; with the same seed the same cuts follow in the same order, but real
// processes and a real kernel never do the same twice.
package power
