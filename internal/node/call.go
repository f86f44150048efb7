// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/internal/config"
)

// Questions between the nodes about services. One question is under way on a
// connection at a time.

// call is a question to the peer.
type call struct {
	Verb    string `json:"verb"` // state, learn or give
	Service string `json:"service"`
	Epoch   uint64 `json:"epoch,omitempty"` // learn: the next one
}

// reply answers a call.
type reply struct {
	Error string `json:"error,omitempty"`

	// state
	State       control.State     `json:"state,omitempty"`
	Epoch       uint64            `json:"epoch,omitempty"`
	Serves      bool              `json:"serves,omitempty"`
	Kept        bool              `json:"kept,omitempty"`        // it has kept running since both were in step
	Disks       map[string]string `json:"disks,omitempty"`       // what each volume's disk is worth, as in the status
	Generations map[string]string `json:"generations,omitempty"` // by volume, in full
	Values      config.Values     `json:"values,omitempty"`      // the configuration, for differences
}

const (
	callState = "state" // what are you for this service?
	callLearn = "learn" // durably: you are in step in this epoch
	callGive  = "give"  // the record names you: write me into it
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
		if writeMessage(conn, n.answer(ctx, c)) != nil {
			return
		}
	}
}

func (n *Node) answer(ctx context.Context, c call) reply {
	s := n.service(c.Service)
	if s == nil {
		return reply{Error: fmt.Sprintf("service %.80q is not in the configuration of %s", c.Service, n.self.Name)}
	}
	var err error
	switch c.Verb {
	case callState:
		st := s.status()
		r := reply{State: st.State, Epoch: st.Epoch, Serves: s.serves(), Kept: s.kept(), Disks: make(map[string]string), Generations: make(map[string]string), Values: n.cfg.Values()}
		for _, v := range st.Volumes {
			r.Disks[v.Name] = v.Disk
		}
		for _, v := range s.volumes {
			r.Generations[v.cfg.Name] = v.status.Load().Generation.Hex()
		}
		return r
	case callLearn:
		err = s.learn(ctx, c.Epoch)
	case callGive:
		err = s.give(ctx)
	default:
		err = fmt.Errorf("question %.20q is not known here", c.Verb)
	}
	if err != nil {
		return reply{Error: err.Error()}
	}
	return reply{}
}
