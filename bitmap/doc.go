// SPDX-License-Identifier: Apache-2.0

// Package bitmap keeps what one node knows about the difference between the
// two copies of a volume: dirty blocks (Bits), write intents (Intents), and
// who and what the copy is (Header), in memory and in their form on stable
// storage. It does no I/O: it turns state into Writes, and Load reads through
// an interface. It knows nothing of peers, requests or roles.
//
// The metadata area of a volume, everything big endian and aligned to 4096
// bytes (docs/FORMAT.md has it byte by byte):
//
//	offset
//	0         header, even sequences    one slot of 4096 bytes
//	64 KiB    header, odd sequences
//	128 KiB   intents, even sequences   one slot each, as long as the limit
//	…         intents, odd sequences    of intents needs, on its own 64 KiB
//	…         pages                     4096 bytes each, 32512 blocks
//
// The invariant is Cover: whatever was cut off, torn or lost while it was
// written, loading never finds a block clean that was durably dirty before and
// is not durably clean after. So a slot is written alternately to two places;
// a page, which is written in place, is all dirty when its checksum is wrong;
// intents of which no copy can be trusted make everything dirty.
//
// What this package cannot see: a copy of a slot that was written whole and
// rotted later looks like one whose writing was cut, and the older one counts.
// So whoever writes a header writes it twice, one place after the other, before
// he relies on it.
package bitmap
