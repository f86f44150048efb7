// SPDX-License-Identifier: Apache-2.0

// Package loop drives the data path of one volume: it moves bytes between
// sockets, disks and the cores that do no I/O themselves (nbd.Session,
// mirror.Engine), in turns, on one thread.
//
// A turn: wait until a connection is readable, a disk task is done, somebody
// posted, or the core's deadline came; read each readable connection once,
// largely, into its Stream; let the Core take its turn on all that came
// together; write what the streams have to say, each in one system call. No
// goroutine, channel or allocation per request.
//
// On Linux the loop owns an OS thread that polls and spins for a moment before
// it sleeps; elsewhere goroutines feed it. Both present the same Conn to the
// same Loop.
package loop
