// SPDX-License-Identifier: Apache-2.0

//go:build linux && !race

package harness

const raceDetector = false
