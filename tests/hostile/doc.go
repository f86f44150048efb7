// SPDX-License-Identifier: Apache-2.0

// Package hostile lets strangers, broken clients and a peer gone mad loose on real
// nodes and a real witness: they connect ten thousand times, say nothing, stop in
// the middle, send random bytes, never read. Meanwhile somebody honest is served
// and somebody new gets in; memory, descriptors and the log stay within a bound,
// and descriptors return.
package hostile
