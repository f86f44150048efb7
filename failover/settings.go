// SPDX-License-Identifier: Apache-2.0

package failover

import "time"

// Arbiter is what decides between two nodes that do not hear each other.
type Arbiter uint8

// The arbiters (rule 19).
const (
	ByWitness Arbiter = iota // the record at the witness
	ByPing                   // a router's address: a split stays possible
	ByFence                  // a command that makes sure that the peer is off
	ByNobody                 // the primary goes on alone; nobody takes over but by the operator's word
)

func (a Arbiter) String() string {
	return [...]string{"witness", "ping", "fence", "nobody"}[a]
}

// Settings is what a Machine is told once.
type Settings struct {
	Service string
	Node    string
	Peer    string

	Heartbeat time.Duration // how often a node speaks
	Timeout   time.Duration // how long a lease lasts; at least three heartbeats

	Arbiter  Arbiter
	Continue bool // lone = "continue": a primary that reaches nobody serves on

	// Succeeds: the process before this one ended a moment ago, with all that it had
	// acknowledged durable.
	Succeeds bool

	Prefer   string        // node where the service should live, or ""
	Failback bool          // return there by itself
	HoldOff  time.Duration // how long the preferred node has been up to date before
}

// patience is how long nothing must have been answered to the peer before this
// node may serve: by then the peer's lease has run out, whatever it heard last
// (rule 20).
func (s *Settings) patience() time.Duration { return s.Timeout + Margin(s.Timeout) }

// repeat is how long an exchange with the witness may take before it is begun
// anew.
func (s *Settings) repeat() time.Duration { return max(s.Heartbeat, s.Timeout/4) }
