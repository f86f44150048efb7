// SPDX-License-Identifier: Apache-2.0

// Package config reads the one TOML file that both nodes and the witness
// share, and checks it.
//
// A configuration that Load returns needs no further checking: every default is
// filled in, every {node} is expanded, every rule between values holds. One that
// does not hold is refused with all its problems at once, each with file, line,
// key and what would be right.
//
// The way of a file: document.go turns bytes into a tree whose keys know their
// lines; section.go reads typed values from one table of it and reports what it
// was not asked for; read.go and read_service.go say which keys there are;
// rules.go holds what one value cannot know of another.
//
// The package reads no other file and asks the system nothing but the host
// name (SelfName): whether a disk exists is for those who open it.
package config
