// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
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
}

// Empty reports whether the witness knows nothing.
func (r Record) Empty() bool { return r.Epoch == 0 }

func (r Record) String() string {
	if r.Empty() {
		return "no record"
	}
	return fmt.Sprintf("epoch %d, held by %s (%s)", r.Epoch, r.Holder, r.Mode)
}

// Request asks for a change of a service's record.
type Request struct {
	Cluster string
	Service string
	From    string // the node that asks; over TLS, the name of its key

	// Replaces is the epoch of the record that the request is to replace. It
	// comes from what the asker durably knows: a holder names the epoch that
	// it holds, a node that takes over the one in which it was in step
	// (NodeState.InStep), so that a node which missed something names an
	// older epoch and is refused. Only an operator's request names what it
	// has just read.
	Replaces uint64

	// RaiseTo is the new epoch when that is to be more than Replaces+1, which
	// only an operator may ask; else 0.
	RaiseTo uint64

	Holder string // the new record's
	Mode   Mode   // the new record's

	// Operator marks the operator's word: `prim` at an empty witness,
	// `primforce` at any.
	Operator bool

	Token Token // not zero

	// Seen is the Serial of the last answer that the asker got about this
	// service. It bounds the age of a request that was under way for long.
	Seen uint64
}

// digest identifies the request by all that it says.
func (q *Request) digest() Digest { return sha256.Sum256(q.append(nil)) }

// check refuses what makes no sense whatever the record says.
func (q *Request) check() error {
	if err := checkNames(q.Cluster, q.Service, q.From); err != nil {
		return err
	}
	if err := CheckName("holder", q.Holder); err != nil {
		return err
	}
	switch {
	case !q.Mode.valid():
		return fmt.Errorf("%s is not a mode; expected pair or alone", q.Mode)
	case q.Token == Token{}:
		return fmt.Errorf("the request has no token; expected a new random one per request")
	}
	return nil
}

// Query asks for a service's record and says how the asker stands to it. Only
// Cluster, Service and From matter to the register; the rest is for the
// witness's timers.
type Query struct {
	Cluster string
	Service string
	From    string // the node that asks; over TLS, the name of its key
	Serving bool   // it serves the service to clients now
	Known   uint64 // the highest epoch that it knows
	Seen    uint64 // Serial of the last answer that it got
}

func (q *Query) check() error { return checkNames(q.Cluster, q.Service, q.From) }

func checkNames(cluster, service, node string) error {
	if err := CheckName("cluster", cluster); err != nil {
		return err
	}
	if err := CheckName("service", service); err != nil {
		return err
	}
	return CheckName("node", node)
}

// Answer is the witness's answer to a Request or a Query.
type Answer struct {
	// Granted: Record is durable and is what the request asked for. Never
	// set in the answer to a Query.
	Granted bool

	// Void: the request was not judged, because it names no answer of this
	// run of the witness, so that nobody knows how old it is. A new request
	// may name this one.
	Void bool

	Record Record // as it is now, granted or not
	Reason string // why not, in one sentence; empty when granted
	Serial uint64 // the number of this answer; rises within one run of the witness
}

// maxName is the longest name, in bytes: that of a label in a host name.
const maxName = 63

// CheckName accepts what may name a cluster, a service or a node: 1 to 63 of
// a-z, 0-9 and '-', not starting with '-'. Such a name is safe in a file name
// on any system, one that ignores case included. what is the noun for the
// error.
func CheckName(what, name string) error {
	bad := name == "" || len(name) > maxName || name[0] == '-'
	for i := 0; i < len(name) && !bad; i++ {
		c := name[i]
		bad = !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-')
	}
	if !bad {
		return nil
	}
	if len(name) > maxName {
		name = name[:maxName] + "…"
	}
	return fmt.Errorf("%q cannot name a %s; expected 1 to %d of a-z, 0-9 and '-'", name, what, maxName)
}
