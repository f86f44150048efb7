// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"fmt"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/failover"
)

// How long clients waited in a switch: from the moment at which this node's right
// ended to the one at which the peer began to serve. The clocks of the nodes need
// not agree: the peer says how long ago that was.

// pauseTimeout is how long the peer is asked for when it began to serve.
const pauseTimeout = 2 * time.Second

// pauseText says how long clients waited in a switch that began at a time.
func (s *service) pauseText(ctx context.Context, began time.Time) string {
	ended, ok := endedSince(s.node.events.Since(0), s.cfg.Name, began)
	if !ok {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, pauseTimeout)
	defer cancel()
	for ; ctx.Err() == nil; wait(ctx, lookEvery) {
		asked := time.Now()
		r, err := s.node.peers.ask(ctx, call{Verb: callServed, Service: s.cfg.Name})
		if err != nil {
			continue
		}
		// Half way is when the peer looked, give or take half the way itself.
		looked := asked.Add(time.Since(asked) / 2)
		served := looked.Add(-time.Duration(r.Ago * float64(time.Second)))
		if r.Ago > 0 && served.After(ended) {
			return fmt.Sprintf(", clients waited %v", served.Sub(ended).Round(time.Millisecond))
		}
	}
	return ""
}

// endedSince is when the right of a service ended first after a time.
func endedSince(events []control.Event, service string, since time.Time) (time.Time, bool) {
	for _, e := range events {
		if e.Service == service && e.Kind == "right" && e.New == "none" && !e.Time.Before(since) {
			return e.Time, true
		}
	}
	return time.Time{}, false
}

// servedFor is for how long this node has served a service, 0 if it does not.
func (n *Node) servedFor(service string) time.Duration {
	s := n.service(service)
	if s == nil {
		return 0
	}
	if m := &s.shown.Load().machine; !m.Serves(m.Term()) || m.Allowed() == failover.RightNone {
		return 0
	}
	if began, ok := servedSince(n.events.Since(0), service); ok {
		return time.Since(began)
	}
	return 0
}

// servedSince is when a node last began to serve: the state says so, and its
// lease may have come a moment later.
func servedSince(events []control.Event, service string) (began time.Time, ok bool) {
	serves := func(state string) bool {
		return state == string(control.Primary) || state == string(control.Alone)
	}
	for _, e := range events {
		switch {
		case e.Service != service:
		case e.Kind == "state" && serves(e.New) && !serves(e.Old):
			began, ok = e.Time, true
		case e.Kind == "state" && !serves(e.New):
			ok = false
		case e.Kind == "right" && e.Old == "none" && ok:
			began = e.Time
		}
	}
	return began, ok
}
