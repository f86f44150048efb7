// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"testing"
)

// What the simulation of a whole service (tests/sim) has found, as scenarios.

// An intent that a crash has left stays until this process has flushed the disk,
// though its blocks are durably dirty: a resync copies them from the cache, and
// clears them.
func TestRule05WhatAnEarlierProcessWrote(t *testing.T) {
	s := newScript(t)
	s.write(s.a, 0, 1, 7)
	s.do(s.a, nil) // the intent
	s.do(s.a, nil) // the write, which no flush follows
	s.restart(s.a, false)
	e := s.a.engine
	s.require(e.marks.intents.Len() == 1 && e.Dirty(0, 1), "left by the crash: an intent, and its blocks")

	saved := false
	e.meta.wantPages(func() { saved = true })
	e.settle()
	for s.a.collect(); s.do(s.a, onMetadata) > 0; {
	}
	s.require(saved && e.evict(1, 0) == 0, "durably dirty, and the intent stays")
	s.a.collect()
	s.require(s.a.has(onData), "about to flush the disk")
	s.run()
	s.require(e.evict(1, 0) == 1, "without need of the intent, once it is flushed")
}

// Whoever hears that the nodes compare what they have can rely on whose blocks win.
func TestRule22WhoHearsOfAResyncKnowsItsSource(t *testing.T) {
	s := newScript(t)
	s.cut()
	s.write(s.a, 0, 1, 7)
	s.run()
	s.a.engine.SetRight(s.now, RightAlone)
	s.a.collect()
	s.run()
	heard := 0
	for _, n := range s.nodes {
		e := n.engine
		e.resync.source = n == s.b // as an earlier one may have left it
		e.cfg.Observe = func(ev Event) {
			if ev.Kind == "session" && ev.New == Comparing.String() {
				heard++
				s.require(e.Status().Source == (n == s.a), "right about the source: "+n.name)
			}
		}
	}
	s.connect()
	s.run()
	s.require(heard == 2, "both compared")
}

// Of two equals either may serve, where another volume of the service leaves no
// choice; then it is the source.
func TestRule10OfTwoEqualsEitherMayServe(t *testing.T) {
	s := newScript(t)
	s.write(s.a, 0, 1, 7)
	s.run()
	s.restart(s.a, false)
	s.connect()
	for s.do(s.a, nil)+s.do(s.b, nil) > 0 || s.deliver(s.a) || s.deliver(s.b) {
	}
	a, b := s.a.engine, s.b.engine
	s.require(a.Status().Equals && b.Status().Equals, "two equals")
	s.require(!a.Status().Source && b.Status().Source, "preferring the one that kept running")
	s.require(a.Promotable() == nil, "both good to serve")
	s.must(a.Promote(s.now, RightAlone, "", func() {}))
	s.a.collect()
	s.run()
	s.connect()
	s.run()
	s.require(a.Primary() && a.session.state == Mirroring && a.Status().Source, "copied from the one that serves")
}
