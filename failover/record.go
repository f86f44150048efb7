// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"time"
)

// Mode says whether the holder's peer has everything.
type Mode uint8

// The modes. The zero Mode belongs to the empty record.
const (
	Pair  Mode = 1 // both nodes have every acknowledged write: the other may take over
	Alone Mode = 2 // only the holder is sure to have them: the other may not
)

func (m Mode) valid() bool { return m == Pair || m == Alone }

func (m Mode) String() string {
	switch m {
	case 0:
		return "none"
	case Pair:
		return "pair"
	case Alone:
		return "alone"
	}
	return fmt.Sprintf("mode %d", uint8(m))
}

// MaxEpoch is the highest epoch. Raised by one at a time it is never reached;
// the bound keeps a request from using the numbers up.
const MaxEpoch = 1 << 62

// Token makes a request its asker's own. A request that is sent again after a
// lost answer carries the same token; any other request a new one.
type Token [16]byte

// NewToken returns a random token.
func NewToken() (t Token) {
	rand.Read(t[:]) // never fails, by its documentation
	return t
}

// Digest is the SHA-256 of a request in the wire form of version 1.
type Digest [sha256.Size]byte

// Record is what the witness keeps of one service. The zero Record is that of
// a service of which the witness knows nothing.
type Record struct {
	Epoch  uint64 // raised by every change; 0 only in the zero Record
	Holder string // the node that has the right to serve
	Mode   Mode

	// Token and Digest are those of the request that made the record. The
	// digest tells a repeat of that request from another one that would have
	// had the same effect.
	Token  Token
	Digest Digest

	// Timeout is how long a lease of the holder's may last: that of the request
	// that made the record, or a longer one with which the holder renewed since.
	// It is kept so that a restarted witness knows how long a silent holder may
	// still be serving.
	Timeout time.Duration
}

// Empty reports whether the witness knows nothing.
func (r Record) Empty() bool { return r.Epoch == 0 }

// View is what a node is told of the record.
func (r Record) View() View { return View{Epoch: r.Epoch, Holder: r.Holder, Mode: r.Mode} }

func (r Record) String() string { return r.View().String() }

// View is what a node durably knows of the record: the newest that it has seen
// in an answer, or heard of from its peer. A number that the witness has not told
// yet is no part of it, for a view above the record shows that records were lost.
type View struct {
	Epoch  uint64 // 0: it has never seen one; the View is then zero
	Holder string
	Mode   Mode
}

func (v View) String() string {
	if v.Epoch == 0 {
		return "no record"
	}
	return fmt.Sprintf("epoch %d, held by %s (%s)", v.Epoch, v.Holder, v.Mode)
}

// check accepts a zero view and a whole one.
func (v View) check() error {
	switch {
	case v.Epoch == 0 && v != View{}:
		return fmt.Errorf("a view without an epoch names %q (%s)", v.Holder, v.Mode)
	case v.Epoch == 0:
		return nil
	case v.Epoch > MaxEpoch:
		return fmt.Errorf("epoch %d is above %d", v.Epoch, uint64(MaxEpoch))
	case !v.Mode.valid():
		return fmt.Errorf("%s is not a mode; expected pair or alone", v.Mode)
	}
	return CheckName("holder", v.Holder)
}
