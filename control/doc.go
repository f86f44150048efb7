// SPDX-License-Identifier: Apache-2.0

// Package control is how people and programs look at a node and ask it to act:
// one Status type, one stream of events, and a local API over a Unix socket
// that the commands use.
//
// It knows nothing of disks, peers or elections: what a node is and does comes
// through the Backend. The API speaks HTTP/1 and JSON, version 1:
//
//	GET  /api/v1/status                    Status
//	GET  /api/v1/events?follow=true&since=SEQ   Event, one per line
//	POST /api/v1/{service}/{verb}          Line, one per line: progress, then the result
//
// {service} is "-" for what concerns the node as a whole. Verbs are an open set:
// the Backend says which it knows. JSON names are stable; new ones may appear.
//
// Who may connect is decided by the socket's mode. On Linux the kernel says who
// asked, and events repeat it.
package control
