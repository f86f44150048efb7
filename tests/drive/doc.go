// SPDX-License-Identifier: Apache-2.0

// Package drive is a disk with a volatile write cache, served over NBD, for tests
// that cut the power: of processes (tests/power) and of machines (tests/vm). A flush
// makes durable what the drive has taken; a cut takes, sector by sector, some of the
// rest away, in no order.
package drive
