// SPDX-License-Identifier: Apache-2.0

package loop

import "time"

// Stream is the core behind one connection: it says where received bytes go
// and what is to be sent. All calls come from the loop's thread. It is
// implemented by nbd.Session and by mirror's peer links.
type Stream interface {
	// Room is where the next received bytes go. Empty means not now: the loop
	// stops reading this connection until a later turn finds room.
	Room() []byte

	// Received says that n bytes were put at the start of the last Room. The
	// stream decodes what is complete. An error ends the connection, after
	// what Output then has; io.EOF ends it in good order, Closed gets nil.
	Received(n int) error

	// Output is what is to be sent, in order; empty when there is nothing. The
	// slices stay valid and unchanged until Sent has counted them.
	Output() [][]byte

	// Sent says that the first n bytes of Output are on their way and belong
	// to the stream again.
	Sent(n int)

	// Closed is the last call: the connection has ended. err is nil when the
	// other side closed it in good order or Port.Close was called.
	Closed(err error)
}

// Core is what the loop drives besides the streams.
type Core interface {
	// Turn is called once in every turn, after everything that arrived was
	// given to the streams, and before their output is sent. now is the time
	// since the loop started, on a clock that only goes forward.
	Turn(now time.Duration)

	// Deadline is when Turn wants to be called again though nothing arrives,
	// on the same clock: math.MaxInt64 is never; a time that is not after the
	// last Turn's now is at once, as after work that was left for later.
	Deadline() time.Duration
}
