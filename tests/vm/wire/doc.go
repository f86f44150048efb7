// SPDX-License-Identifier: Apache-2.0

// Package wire is what a test and the init of a machine say to each other: JSON
// values one after the other, over a virtio serial port. It needs no network and no
// file system, so it works while a test breaks those.
package wire

// Port is the name of the serial port.
const Port = "init"

// Request asks init to run a program, or to send a signal to one that runs.
type Request struct {
	ID     int64    `json:"id"` // of the program; from 1 on
	Argv   []string `json:"argv,omitempty"`
	Stdin  []byte   `json:"stdin,omitempty"`
	Signal int      `json:"signal,omitempty"` // to the process group of a program
}

// Answer is output of a program, or its end. One with ID 0 says that init is ready.
type Answer struct {
	ID     int64  `json:"id"`
	Stdout []byte `json:"stdout,omitempty"`
	Stderr []byte `json:"stderr,omitempty"`
	Ended  bool   `json:"ended,omitempty"`
	Code   int    `json:"code,omitempty"`  // exit code, as a shell has it: 127 not started, 128+n signal n
	Error  string `json:"error,omitempty"` // why it did not start
}
