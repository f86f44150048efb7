// SPDX-License-Identifier: Apache-2.0

//go:build nextprotocol

package mirror

// ProtocolVersion as the next release will have it, for the test that upgrades one
// node at a time.
const ProtocolVersion = 2
