// SPDX-License-Identifier: Apache-2.0

package mirror

// Nodes are upgraded one at a time, so each speaks the protocol of the release before
// its own too. What a session may use beyond the older of the two versions is agreed
// on by the features in both hellos.

// ProtocolMinVersion is the oldest version of the protocol between the nodes that
// this code speaks; ProtocolVersion is the newest.
const ProtocolMinVersion = max(1, ProtocolVersion-1)
