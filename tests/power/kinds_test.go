// SPDX-License-Identifier: Apache-2.0

//go:build linux

package power

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/tests/harness"
)

// takeover is more than a secondary waits before it takes over, at this pace.
const takeover = 3 * time.Second

// kinds are the ways to lose power that are asked for. Each says what it did.
func (s *story) kinds() (asked []func() string) {
	for _, kind := range []struct {
		name string
		cut  func() string
	}{
		{"secondary", s.loseSecondary}, {"primary", s.losePrimary}, {"both", s.loseBoth},
		{"target", s.loseTargets}, {"source", s.loseSource}, {"chain", s.loseOneAfterTheOther}, {"promise", s.losePromise},
	} {
		if *onlyFlag == "" || *onlyFlag == kind.name {
			asked = append(asked, kind.cut)
		}
	}
	if len(asked) == 0 {
		s.t.Fatalf("no kind of cut is called %q", *onlyFlag)
	}
	return asked
}

// loseSecondary: the primary goes on, its clients see a short pause.
func (s *story) loseSecondary() string {
	victim := s.secondary()
	s.cut(victim)
	s.acknowledged()
	s.elapse(300 * time.Millisecond)
	victim.boot(s.t)
	return "the secondary " + victim.Name
}

// losePrimary: the survivor takes over and has every acknowledged write; or the other,
// if it is back before that, serves again, and has got what it may lack.
func (s *story) losePrimary() string {
	victim, survivor := s.primary, s.secondary()
	what := "the primary " + victim.Name
	s.cut(victim)
	s.clientsDie()
	quick := s.coin()
	if quick {
		what += ", which is back at once"
		victim.boot(s.t)
	}
	s.again(s.machines[s.lab.WaitServing(s.t)], s.ledger.acked, what)
	if s.primary != survivor && !quick {
		s.t.Errorf("%s: it serves, and has no power", what)
	}
	if !victim.Running() {
		s.acknowledged()
		victim.boot(s.t)
	}
	return what
}

// loseBoth: whoever serves then has everything that was flushed.
func (s *story) loseBoth() string {
	last := s.primary
	what := "both, " + last.Name + " served"
	s.cut(s.primary, s.secondary())
	s.clientsDie()
	s.returnBoth(&what)
	return what
}

// returnBoth lets both machines return, in any order. Who served last may be able to
// serve without the other, the other may not.
func (s *story) returnBoth(what *string) {
	s.t.Helper()
	last, first, second := s.primary, s.primary, s.secondary()
	if s.coin() {
		first, second = second, first
	}
	first.boot(s.t)
	if first != last || s.coin() {
		second.boot(s.t)
	}
	s.again(s.machines[s.lab.WaitServing(s.t)], s.ledger.durable, *what)
	if s.primary != last {
		*what += ", now " + s.primary.Name
	}
	if !second.Running() {
		s.acknowledged()
		second.boot(s.t)
	}
}

// loseTargets: the secondary loses its power again and again while it is brought up
// to date, or soon after.
func (s *story) loseTargets() string {
	victim := s.secondary()
	what := "the target " + victim.Name
	s.cut(victim)
	for range 1 + s.random.IntN(3) {
		s.acknowledged()
		what += s.resyncing(victim)
		s.cut(victim)
	}
	s.acknowledged()
	victim.boot(s.t)
	return what
}

// resyncing boots a machine that lacks writes, and lets a resync come to a random
// point.
func (s *story) resyncing(target *machine) (what string) {
	s.t.Helper()
	target.boot(s.t)
	harness.WaitFor(s.t, "the nodes to meet", patience, func() error {
		if c := s.primary.Service(s.t).Peer.Connection; c != "connected" {
			return fmt.Errorf("%s is %s", s.primary.Name, c)
		}
		return nil
	})
	s.elapse(150 * time.Millisecond)
	for _, v := range s.lab.Volumes() {
		if s.primary.Volume(s.t, v).Resync != nil {
			what += ", copying " + v
		}
	}
	return what
}

// loseSource: the primary loses its power while it brings the secondary up to date;
// perhaps the secondary does too. Unless that was done, the secondary is worth
// nothing until the primary is back.
func (s *story) loseSource() string {
	source, target := s.primary, s.secondary()
	what := "the source " + source.Name
	s.cut(target)
	s.acknowledged()
	what += s.resyncing(target)
	if s.coin() {
		what += ", and the target"
		s.cut(source, target)
		s.clientsDie()
		s.returnBoth(&what)
		return what
	}
	// Only a target that has everything takes over, and in a pair it has.
	kept := s.ledger.durable
	if source.Service(s.t).State == control.Primary {
		kept = s.ledger.acked
		what += ", which was done"
	}
	s.cut(source)
	s.clientsDie()
	if s.coin() {
		harness.Elapse(takeover)
	}
	if s.serves(target) && s.inconsistent(target) {
		s.t.Errorf("%s: %s serves in the middle of a resync onto it", what, target.Name)
	}
	source.boot(s.t)
	s.again(s.machines[s.lab.WaitServing(s.t)], kept, what)
	return what
}

func (s *story) serves(m *machine) bool {
	state := m.Service(s.t).State
	return state == control.Alone || state == control.Primary
}

// inconsistent reports whether a resync onto one of the machine's disks is not done.
func (s *story) inconsistent(m *machine) bool {
	return slices.ContainsFunc(m.volumes, func(v volume) bool { return m.Volume(s.t, v.name).Disk == "inconsistent" })
}

// loseOneAfterTheOther: the primary goes, then the survivor, which has gone on alone.
func (s *story) loseOneAfterTheOther() string {
	first, survivor := s.primary, s.secondary()
	what := fmt.Sprintf("%s, then %s", first.Name, survivor.Name)
	s.cut(first)
	s.clientsDie()
	s.again(s.machines[s.lab.WaitServing(s.t)], s.ledger.acked, what)
	s.acknowledged()
	s.cut(survivor)
	s.clientsDie()
	s.returnStale(what, first, survivor)
	return what
}

// losePromise: the witness is away, so the secondary promises not to serve, and then
// goes; the primary has gone on by the promise when it goes too. The record knows
// nothing of that: all that stops the secondary is on a drive of its own.
func (s *story) losePromise() string {
	holder, bound := s.primary, s.secondary()
	what := fmt.Sprintf("%s, which had promised, then %s", bound.Name, holder.Name)
	const held = "new=held" // in the log, as the promise is in no status of who holds it
	before := strings.Count(holder.Log(), held)
	s.lab.Witness.Kill(s.t)
	harness.WaitFor(s.t, "the promise", patience, func() error {
		if strings.Count(holder.Log(), held) == before {
			return fmt.Errorf("%s does not hold it; %s: %s", holder.Name, bound.Name, bound.Service(s.t).Reason)
		}
		return nil
	})
	s.cut(bound)
	s.acknowledged()
	s.cut(holder)
	s.clientsDie()
	s.lab.StartWitness(s.t)
	s.returnStale(what, bound, holder)
	return what
}

// returnStale lets two machines return, first the one that lacks what the other wrote
// alone: it must wait.
func (s *story) returnStale(what string, stale, last *machine) {
	s.t.Helper()
	stale.boot(s.t)
	if s.coin() {
		harness.Elapse(takeover)
	}
	if s.serves(stale) {
		s.t.Errorf("%s: %s serves without the writes of %s", what, stale.Name, last.Name)
	}
	last.boot(s.t)
	s.again(s.machines[s.lab.WaitServing(s.t)], s.ledger.durable, what)
}
