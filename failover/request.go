// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"crypto/sha256"
	"fmt"
	"time"
)

// Stamp says when the witness gave an answer: on its own clock, in the run of
// the process that Run names. Only the witness compares it with anything.
type Stamp struct {
	Run uint64 // random; 0 in the zero Stamp only
	At  time.Duration
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

	// RaiseTo is the new epoch when that is to be more than Replaces+1: past
	// every number that the asker knows, was told or has promised by (rule
	// 16); else 0.
	RaiseTo uint64

	// Claim is the number of the promise by which the asker may write
	// itself, or its peer, in over whatever lower record there is (rule 19); 0
	// without one. RaiseTo is then at least Claim.
	Claim uint64

	Holder string // the new record's
	Mode   Mode   // the new record's

	// Operator marks the operator's word: `prim` at an empty witness,
	// `primforce` at any.
	Operator bool

	Token Token // not zero

	// Seen is the stamp of the last answer that the asker got about this
	// service. The request is void Timeout after that. The asker, whose clock
	// is another, adds Margin before it counts on it.
	Seen Stamp

	// Timeout is the asker's: how long its leases last. Above 0, at most
	// MaxTimeout.
	Timeout time.Duration
}

// epoch is that of the record that the request would make.
func (q *Request) epoch() uint64 { return max(q.Replaces+1, q.RaiseTo) }

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
	case q.Claim != 0 && (q.RaiseTo < q.Claim || q.Mode != Alone || q.Operator):
		return fmt.Errorf("a claim by promise %d raises to %d (%s, operator %t); expected at least the promise, alone, and no operator",
			q.Claim, q.RaiseTo, q.Mode, q.Operator)
	}
	return checkTimeout(q.Timeout)
}

// Query asks for a service's record and says how the asker stands to it.
type Query struct {
	Cluster string
	Service string
	From    string        // the node that asks; over TLS, the name of its key
	Serving bool          // it serves the service to clients now
	Knows   View          // of the record, durably
	Seen    Stamp         // of the last answer that it got
	Timeout time.Duration // how long its leases last; above 0, at most MaxTimeout
}

func (q *Query) check() error {
	if err := checkNames(q.Cluster, q.Service, q.From); err != nil {
		return err
	}
	if err := q.Knows.check(); err != nil {
		return err
	}
	return checkTimeout(q.Timeout)
}

// MaxTimeout is the longest timeout of a node. The bound keeps one wild number
// from holding a service back for ever.
const MaxTimeout = time.Hour

func checkTimeout(timeout time.Duration) error {
	if timeout <= 0 || timeout > MaxTimeout {
		return fmt.Errorf("%v cannot be a timeout; expected up to %v", timeout, MaxTimeout)
	}
	return nil
}

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
	// set in the answer to a Query. The very request gets the same answer
	// again, which renews nothing: a lease that comes with it counts from when
	// the request was first sent (F19 of the protocol's review).
	Granted bool

	// Void: the request was not judged, because it names no answer that this
	// run of the witness gave within the request's timeout. A new request may
	// name this one.
	Void bool

	// Renewed: the asker is the holder, serves, and confirmed a recent
	// answer; nobody may take over before its timeout and the margin have
	// passed since this answer. Only set in the answer to a Query.
	Renewed bool

	// Wait is how long the holder has yet to be silent before the other node
	// may take over; 0 when that is not what is missing.
	Wait time.Duration

	Record Record // as it is now, granted or not
	Reason string // why not, in one sentence; empty when granted. To a Query: why no node would be granted anything
	Stamp  Stamp  // of this answer
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
