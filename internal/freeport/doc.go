// SPDX-License-Identifier: Apache-2.0

// Package freeport finds TCP ports on loopback for processes that are about to
// be started: of the demo, the benchmark and the tests.
package freeport
