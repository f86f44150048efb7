// SPDX-License-Identifier: Apache-2.0

package failover

// What tests from outside need to speak to a server by hand.

// HelloFrame opens a conversation with these versions.
func HelloFrame(lowest, highest uint16) []byte {
	return (&frame{kind: frameHello, call: 1, body: []byte{
		byte(lowest >> 8), byte(lowest), byte(highest >> 8), byte(highest), 0xff, // and something from the future
	}}).append(nil)
}

// RawFrame is any frame.
func RawFrame(kind uint16, call uint64, body []byte) []byte {
	return (&frame{kind: frameType(kind), call: call, body: body}).append(nil)
}

// QueryFrame asks for a record.
func QueryFrame(call uint64, q Query) []byte {
	return (&frame{kind: frameRead, call: call, body: q.append(nil)}).append(nil)
}
