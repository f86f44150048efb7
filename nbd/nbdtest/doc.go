// SPDX-License-Identifier: Apache-2.0

// Package nbdtest is the other side of package nbd's seams, for tests: an
// engine on a piece of memory, and a server that drives sessions with plain
// goroutines. Neither is meant for data that anybody wants to keep.
package nbdtest
