// SPDX-License-Identifier: Apache-2.0

//go:build !nextprotocol

package mirror

// ProtocolVersion is the newest version of the protocol between the nodes that this
// code speaks.
const ProtocolVersion = 1
