// SPDX-License-Identifier: Apache-2.0

package loop

import "errors"

// errVoid ends a connection that its other side gave up before all was read.
var errVoid = errors.New("the other side has given this connection up: what it had sent and was not read yet is void")

// Distrust makes void what a connection still holds when its other side has shut
// it down. The kernel's NBD driver sends the requests of a connection that it
// gave up again on another. If an old one ran after its repetition, and after
// what the application wrote upon that, it would bring old bytes back. So it is
// asked after each read whether the connection lives; whatever was read before
// it died is before its repetition in the order of this loop, too.
func (p *Port) Distrust() { p.distrust = true }

// hanger is a link that can say whether the other side has shut it down.
type hanger interface{ hungUp() bool }

// void reports whether what was just read is not to be used.
func (p *Port) void() bool {
	if !p.distrust {
		return false
	}
	h, ok := p.link.(hanger)
	return ok && h.hungUp()
}
