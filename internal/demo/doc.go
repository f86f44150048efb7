// SPDX-License-Identifier: Apache-2.0

// Package demo is `twinbd demo`: two nodes and a witness as processes of this
// machine, led through the deaths that twinbd is made for, with everything that
// is claimed on the way measured or compared. It is a user of the product, not
// a part of it: it starts the program's own binary, asks the nodes through their
// control sockets and writes through their NBD exports.
//
// The story is in demo.go (the list of steps) and step_*.go (one step each).
// The rest is what the steps stand on: processes, the image, the load and its
// ledger, the comparison of disks.
//
// A mismatch anywhere is an error. The numbers are those of the run; nothing is
// printed that was not measured.
package demo
