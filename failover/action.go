// SPDX-License-Identifier: Apache-2.0

package failover

import "time"

// Do is a kind of action.
type Do uint8

// What a Machine wants done. Actions are carried out in order, each before the
// next: what is stored is durable before anything after it happens. The shell
// tells the outcome of those that say so.
const (
	DoStore   Do = iota + 1 // make State durable; when that fails, the node stops
	DoBeat                  // send Beat to the peer on every path
	DoQuery                 // ask the witness Query; answered by Answered(Nonce)
	DoChange                // ask the witness Request; answered by Answered(Nonce)
	DoPing                  // ask the router, and probe the service's addresses; answered by Pinged(Nonce)
	DoFence                 // run the fence command; answered by Fenced
	DoRight                 // tell every volume Right and Until
	DoNames                 // tell every volume that the record names the peer (rule 18)
	DoPromote               // make every volume serve by Right, with Force if not empty; answered by Promoted
	DoDemote                // stop serving, drain and flush; answered by Demoted
	DoExpel                 // stop serving now: every request fails; answered by Demoted
	DoUp                    // bring the application up in Epoch; answered by Up
	DoDown                  // take it down in order; answered by Down
	DoKill                  // take it down by force; answered by Down
	DoHide                  // remove the virtual addresses: the lease has run out
	DoShow                  // take them again
	DoConnect               // volumes may connect to the peer, or with Off may not
	DoSource                // volumes that the peer lacks are copied to it, though this node does not serve; with Off no longer
	DoEvent                 // tell Event
)

func (d Do) String() string {
	return [...]string{"none", "store", "beat", "query", "change", "ping", "fence", "right", "names", "promote", "demote", "expel",
		"up", "down", "kill", "hide", "show", "connect", "source", "event"}[d]
}

// Action is one thing to be done. Only the fields that its Do names count.
type Action struct {
	Do      Do
	State   NodeState
	Beat    Beat
	Nonce   uint64
	Query   Query
	Request Request
	Right   Right
	Until   time.Duration // on the clock of the inputs; Forever where no lease is needed
	Epoch   uint64
	Force   string
	Off     bool
	Event   Event
}

// Right is what a serving node may acknowledge.
type Right uint8

// The rights.
const (
	RightNone  Right = iota // nothing: clients wait
	RightPair               // what both nodes have, reads included, while the lease lasts
	RightAlone              // everything
)

func (r Right) String() string { return [...]string{"none", "pair", "alone"}[r] }

// Forever is the end of a lease that is not needed.
const Forever = time.Duration(1<<63 - 1)

// Event is one change of what a node is for the service.
type Event struct {
	Old, New string // states, or rights
	Kind     string // "state", "right", "epoch", "promise", "application"
	Reason   string // one sentence
	Who      string // who asked; "" when nobody did
}
