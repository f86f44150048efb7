// SPDX-License-Identifier: Apache-2.0

// Package failovertest has what tests of failover need: a directory in memory
// that can lose power, fail to flush, and rot.
package failovertest
