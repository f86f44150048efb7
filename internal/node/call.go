// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/internal/config"
)

// Questions between the nodes that no beat answers. One question is under way on
// a connection at a time.

// call is a question to the peer.
type call struct {
	Verb    string            `json:"verb"`
	Service string            `json:"service,omitempty"` // act, served, side
	Volume  string            `json:"volume,omitempty"`  // act, side
	Act     string            `json:"act,omitempty"`     // act: the action's verb
	Args    map[string]string `json:"args,omitempty"`    // act
	Who     string            `json:"who,omitempty"`     // act: who asked the asker
}

// reply answers a call.
type reply struct {
	Error    string             `json:"error,omitempty"`
	Hint     string             `json:"hint,omitempty"`
	Values   config.Values      `json:"values,omitempty"`   // values: the configuration, for differences
	Progress *control.Progress  `json:"progress,omitempty"` // act: more follows
	Done     bool               `json:"done,omitempty"`     // act: it is
	Ago      float64            `json:"ago,omitempty"`      // served: seconds; 0: it is not served here
	Side     *control.SplitSide `json:"side,omitempty"`     // side
}

// The questions.
const (
	callValues = "values" // what is your configuration?
	callAct    = "act"    // do what your part of this is (pass.go)
	callServed = "served" // for how long have you been serving?
	callSide   = "side"   // what do you have of this volume that I lack?
)

const callTimeout = 3 * time.Second

// ask puts a question to the peer on a connection of its own.
func (p *peers) ask(ctx context.Context, c call) (reply, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	conn, err := p.dial(ctx, preamble{Kind: kindCall})
	if err != nil {
		return reply{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	var r reply
	if err := writeMessage(conn, c); err != nil {
		return r, fmt.Errorf("ask %s: %w", p.node.peer.Name, err)
	}
	if err := readMessage(conn, &r); err != nil {
		return r, fmt.Errorf("answer of %s: %w", p.node.peer.Name, err)
	}
	if r.Error != "" {
		return r, fmt.Errorf("%s: %s", p.node.peer.Name, r.Error)
	}
	return r, nil
}

// answerCalls answers the peer's questions until the connection ends.
func (n *Node) answerCalls(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	for {
		conn.SetReadDeadline(time.Now().Add(time.Minute))
		var c call
		if readMessage(conn, &c) != nil {
			return
		}
		var err error
		if c.Verb == callAct {
			err = n.carryOut(ctx, conn, c)
		} else {
			conn.SetWriteDeadline(time.Now().Add(callTimeout))
			err = writeMessage(conn, n.answerCall(c))
		}
		if err != nil {
			return
		}
	}
}

// answerCall answers what can be answered at once.
func (n *Node) answerCall(c call) reply {
	switch c.Verb {
	case callValues:
		return reply{Values: n.cfg.Values()}
	case callServed:
		return reply{Ago: n.servedFor(c.Service).Seconds()}
	case callSide:
		if v := n.volume(c.Volume); v != nil {
			side := v.side()
			return reply{Side: &side}
		}
		return reply{Error: fmt.Sprintf("volume %.80q is not in the configuration of %s", c.Volume, n.self.Name)}
	}
	return reply{Error: fmt.Sprintf("question %.20q is not known here", c.Verb)}
}

// differing compares the configurations, one comparison at a time, and again when
// the peer's has become another one meanwhile.
func (n *Node) differing(ctx context.Context, digest string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.theirDigest = digest; n.comparing {
		return
	}
	n.comparing = true
	n.comparisons.Go(func() {
		for ctx.Err() == nil {
			n.mu.Lock()
			digest := n.theirDigest
			n.mu.Unlock()
			n.compareConfiguration(ctx, digest)
			n.mu.Lock()
			if n.theirDigest == digest {
				n.comparing = false
				n.mu.Unlock()
				return
			}
			n.mu.Unlock()
			wait(ctx, compareEvery)
		}
		n.mu.Lock()
		n.comparing = false
		n.mu.Unlock()
	})
}

// compareEvery is the pause between two comparisons.
const compareEvery = 5 * time.Second

// compareConfiguration finds out in which keys the peer's configuration differs,
// now that its digest is this one.
func (n *Node) compareConfiguration(ctx context.Context, digest string) {
	differs := ""
	if digest != n.digest {
		differs = fmt.Sprintf("the configuration of %s differs", n.peer.Name)
		if r, err := n.peers.ask(ctx, call{Verb: callValues}); err == nil {
			keys := config.Diff(n.cfg.Values(), r.Values)
			differs += " in " + strings.Join(keys, ", ")
		}
	}
	if ctx.Err() != nil {
		return
	}
	n.mu.Lock()
	news := differs != n.differs
	n.differs = differs
	n.mu.Unlock()
	if !news {
		return
	}
	for _, s := range n.services {
		if differs == "" {
			s.event("configuration", "different", "same", "", "")
		} else {
			s.event("configuration", "same", "different", differs+"; hint: use the same file on both nodes", "")
		}
	}
}
