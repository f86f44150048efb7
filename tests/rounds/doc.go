// SPDX-License-Identifier: Apache-2.0

// Package rounds kills nodes under load, at random moments, again and again:
//
//	go test ./tests/rounds -v -args -rounds 50 -seed 7
//
// One pair lives through all rounds. A client with a ledger writes to it: every
// block that it writes carries a number, and the ledger knows which numbers were
// acknowledged, so each block that is read back is either what was acknowledged
// last or a write that was under way. What was read once stays.
//
// A round kills the secondary, the primary or both, goes on with who is left, and
// brings the dead back. Nobody tells the nodes who is to serve. Then it holds that
// no acknowledged write is missing, that no more was copied than the marks say,
// that both disks are the same byte by byte, and that a node that missed a write
// may not serve.
package rounds
