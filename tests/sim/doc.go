// SPDX-License-Identifier: Apache-2.0

// Package sim lets a whole service run in one goroutine, in virtual time, from one
// seed: two nodes with two volumes each (the real mirror.Engine, bitmap and
// failover.Machine), the real witness register, simulated disks, lines, clocks and
// clients. Things go wrong, most of them while the nodes meet or copy; all the while
// it is checked that what the project promises holds.
package sim
