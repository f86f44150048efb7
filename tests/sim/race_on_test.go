// SPDX-License-Identifier: Apache-2.0

//go:build race

package sim

// fresh is how many fresh seeds a plain test runs.
const fresh = 6
