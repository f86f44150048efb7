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
// it sleeps; elsewhere goroutines feed it. Both present the same Port to the
// same Loop.
//
// In the order in which one reads them:
//
//	stream.go   what the loop drives: Stream, Core
//	loop.go     the turn
//	post.go     how others reach the loop's thread, and wake it
//	port.go     one connection: receive, flush, end
//	link.go     what a port needs of a connection, and which kind it gets
//	poll_linux.go, socket_linux.go   raw sockets and ppoll(2)
//	pump.go, park.go                 any net.Conn, fed by two goroutines
//	shim.go, tlslink.go              TLS as a filter within the turn
//	disks.go, issue.go               disk tasks: inline while that is quick, else on workers
//	policy.go                        when it is quick
//	crew.go, perform.go              the workers, and what one does with a task
//
// What holds throughout: everything that has no comment to the contrary runs
// on the loop's thread, so that ports, streams, the core and the disks' policy
// need no lock; a stream is told Closed exactly once; a task comes back exactly
// once; nothing grows with what a stranger sends.
package loop
