// SPDX-License-Identifier: Apache-2.0

//go:build linux && race

package harness

// raceDetector says that the tests run with the race detector; so does the
// program then.
const raceDetector = true

// MemoryFactor is how much more memory a binary of these tests may take than the
// one that is shipped: the race detector remembers who touched what.
const MemoryFactor = 8
