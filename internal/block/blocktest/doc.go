// SPDX-License-Identifier: Apache-2.0

// Package blocktest has disks for tests, and the tests that every disk passes.
//
// Memory is a plain disk in memory. CrashDisk is one with a volatile write
// cache: it can lose power, fail, hang, lie and rot, all of it decided by the
// test and repeatable from a seed. Contract checks that a block.Disk keeps its
// promises; Memory, CrashDisk, files and block devices all run it.
package blocktest
