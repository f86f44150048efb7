// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
)

// Backend is the node behind the API. Calls may overlap.
type Backend interface {
	// Status returns the status as it is now, promptly: it waits for no disk and
	// no peer. The caller does not change it.
	Status() Status

	// Act does what is asked and returns when it is done. It calls progress,
	// from one goroutine at a time, as often as it likes; the call may wait
	// some seconds for a slow client. ctx ends when the client goes away: what can
	// be taken back then is, and what runs by itself (a resync) goes on. Errors
	// are shown to the user: see Refusal. An unknown verb is ErrUnknownVerb.
	Act(ctx context.Context, action Action, progress func(Progress)) error
}

// ErrUnknownVerb is what Act returns for a verb that it does not know.
var ErrUnknownVerb = &Refusal{
	Message: "the node does not know this action",
	Hint:    "its version may be older than that of this command: compare `twinbd version` with `twinbd status --json`",
}

// NodeWide stands in a path where the action concerns no single service.
const NodeWide = "-"

// Action is what somebody asks of a node.
type Action struct {
	Verb    string            // as the command is called: prim, verify, …
	Service string            // empty: the node as a whole
	Volume  string            // empty: all volumes of the service
	Args    map[string]string // the verb's own, for example "repair": "true"
	Who     string            // who asks; filled in by the server
}

// request is the body of an action.
type request struct {
	Volume string            `json:"volume,omitempty"`
	Args   map[string]string `json:"args,omitempty"`
}

// Progress is how far an action has come.
type Progress struct {
	Text  string `json:"text"`            // the step, one line
	Done  int64  `json:"done,omitempty"`  // bytes
	Total int64  `json:"total,omitempty"` // bytes; 0: a step that has no measure
	Split *Split `json:"split,omitempty"` // what the verb split has found
}

// Result is the last word on an action.
type Result struct {
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
	Hint  string `json:"hint,omitempty"`
}

// Line is one line of the answer to an action: any number with Progress, then
// one with Result.
type Line struct {
	Progress *Progress `json:"progress,omitempty"`
	Result   *Result   `json:"result,omitempty"`
}

func resultOf(err error) *Result {
	if err == nil {
		return &Result{OK: true}
	}
	r := Refuse(err)
	return &Result{Error: r.Message, Hint: r.Hint}
}

func (r *Result) err() error {
	if r.OK {
		return nil
	}
	return &Refusal{Message: r.Error, Hint: r.Hint}
}
