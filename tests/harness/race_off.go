// SPDX-License-Identifier: Apache-2.0

//go:build linux && !race

package harness

const raceDetector = false

// MemoryFactor is how much more memory a binary of these tests may take than the
// one that is shipped: the race detector remembers who touched what.
const MemoryFactor = 1
