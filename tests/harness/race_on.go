// SPDX-License-Identifier: Apache-2.0

//go:build linux && race

package harness

// raceDetector says that the tests run with the race detector; so does the
// program then.
const raceDetector = true
