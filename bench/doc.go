// SPDX-License-Identifier: Apache-2.0

// Bench measures a pair of twinbd nodes beside other NBD servers, all driven
// by fio's nbd engine over a Unix socket on this machine.
//
// Absolute figures say little on a shared machine, so nothing is compared
// across runs: every round measures every system once for each job, in an
// order that turns from round to round, and what is printed are ratios. Foreign
// load only ever takes away, so the best of the rounds is quoted, beside the
// median. The peers are
//
//   - nbdkit: its file plugin, one copy, not replicated: the price of a mirror;
//   - quorum: a qemu-storage-daemon that writes to a file and, over TCP, to an
//     nbdkit: the fastest replicated pair in user space that forwards FLUSH.
//
// docs/BENCHMARKS.md says how to run it and how to read it.
package main
