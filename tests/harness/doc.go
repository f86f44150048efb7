// SPDX-License-Identifier: Apache-2.0

// Package harness runs the program as its users do: two nodes and a witness, each
// a process of its own with its own directory and disk, on loopback and on Unix
// sockets. Tests start, stop, freeze and kill them by process id, ask them through
// their control sockets, and compare their disks byte by byte.
//
// It does no more than a user could: what a test knows it has from a status, a
// log, an exit code, an NBD client or a disk. Nothing waits for a while and hopes:
// WaitFor asks until the answer is right or a deadline has passed.
//
// A lab removes everything at the end of its test, ends only what it started, and
// fails the test when two disks that are said to be alike are not.
package harness
