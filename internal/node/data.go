// SPDX-License-Identifier: Apache-2.0

package node

import (
	"time"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/failover"
	"github.com/twinbd/twinbd/mirror"
)

// look tells the machine what the volumes say.
func (s *service) look(m *failover.Machine, now time.Duration) []failover.Action {
	s.stopReplicating(m)
	s.leaveSilent(m)
	return m.Saw(now, s.data())
}

// data sums the volumes up.
func (s *service) data() failover.Data {
	seen := make([]Seen, len(s.volumes))
	for i, v := range s.volumes {
		ahead := v.heard.Load() < s.lone // looked at first: the status is then of after it
		st, asked, waits := s.waits(v)
		seen[i] = Seen{Status: st, Waits: waits, Asked: asked, Ahead: ahead, Stuck: v.Hung() >= v.patience()}
	}
	d := Sum(seen, s.machine.Durable().View.Holder == s.node.self.Name)
	d.Detached, d.Addressed = s.app.addresses.cutLoose(), s.app.addresses.here()
	return d
}

// Seen is one volume as its service sees it.
type Seen struct {
	Status *mirror.Status
	Waits  bool // for what it has asked
	Asked  mirror.Ask
	Ahead  bool // a word on being alone is still ahead of it: that it may be, or may no longer
	Stuck  bool // its data path has not turned for too long
}

// Sum is what the volumes say all together: a service is as good as its worst
// volume. holder tells whether the record names this node, as far as it knows. Sum
// is pure, so that a simulation tells its machines the same.
func Sum(volumes []Seen, holder bool) failover.Data {
	d := failover.Data{Whole: true, Mirrored: true, Kept: true, Lost: true}
	for i := range volumes {
		v := &volumes[i]
		st := v.Status
		mirrored := st.Session == mirror.Mirroring
		d.Whole = d.Whole && st.State == bitmap.Consistent && st.DiskFailed == ""
		d.New = d.New || st.State == bitmap.Blank || st.State == bitmap.Fresh
		d.Mirrored = d.Mirrored && mirrored
		d.Kept = d.Kept && (st.KeptInStep || mirrored)
		d.Meeting = d.Meeting || st.Session == mirror.Greeting || st.Session == mirror.Draining
		d.Lost = d.Lost && v.Waits && v.Asked == mirror.AskAlone
		d.Lone = d.Lone || v.Ahead || st.Primary && st.Right == mirror.RightAlone
		d.Failed = d.Failed || v.Waits && v.Asked == mirror.AskPeer
		d.Stuck = d.Stuck || v.Stuck
		d.Owes = d.Owes || !st.Equals && winnerOf(st) == failover.Mine && st.Session != mirror.Hosting
	}
	d.Winner = winner(volumes, holder)
	return d
}

// waits reports how a volume is, and what it has asked and not got. A peer that is
// back, with nothing that differs, is an answer too. A volume publishes that the
// peer is lost before it asks: looked at in the other order, a question could be
// taken for answered by the peer whose loss it is about.
func (s *service) waits(v *volume) (*mirror.Status, mirror.Ask, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.asked[v]
	st := v.status.Load()
	if ok && a == mirror.AskAlone && st.Session == mirror.Mirroring {
		delete(s.asked, v)
		ok = false
	}
	return st, a, ok
}

// winner says whose blocks are the newer ones. A service has one winner, as both
// nodes must find: where one generation is older, that decides; a preference
// between equals gives way to it, and where two volumes prefer different nodes,
// the record does.
func winner(volumes []Seen, holder bool) failover.Winner {
	var newer, preferred [failover.Split + 1]int // volumes, by winner
	for i := range volumes {
		st := volumes[i].Status
		if w := winnerOf(st); st.Equals {
			preferred[w]++
		} else {
			newer[w]++
		}
	}
	switch {
	case newer[failover.Split] > 0:
		return failover.Split
	case newer[failover.NotMet] > 0:
		return failover.NotMet
	case newer[failover.Theirs] > 0:
		return failover.Theirs
	case newer[failover.Mine] > 0:
		return failover.Mine
	case preferred[failover.Theirs] > 0 && (preferred[failover.Mine] == 0 || !holder):
		return failover.Theirs
	case preferred[failover.Mine] > 0:
		return failover.Mine
	}
	return failover.Same
}

// winnerOf says whose blocks are the newer ones, for one volume.
func winnerOf(st *mirror.Status) failover.Winner {
	switch st.Session {
	case mirror.Mirroring:
		return failover.Same
	case mirror.Comparing, mirror.Resyncing:
		if st.Source {
			return failover.Mine
		}
		return failover.Theirs
	case mirror.Hosting:
		return failover.Mine
	}
	if st.Split {
		return failover.Split
	}
	return failover.NotMet
}

// stopReplicating: a volume has lost its peer and waits for the right to go on
// alone. Then no volume of the service replicates any more (rule 10): each
// flushes, and asks as well. What a node asked when it served counts no more once
// it follows.
func (s *service) stopReplicating(m *failover.Machine) {
	alone := !m.Serving() || mirror.Right(s.right.Load()) == mirror.RightAlone
	s.parting.Store(!alone && s.mustPart())
	if alone || !s.anyAsked(mirror.AskAlone) {
		return
	}
	for _, v := range s.volumes {
		if v.status.Load().Session == mirror.Mirroring && !s.hasAsked(v) {
			v.post(func(now time.Duration) { v.engine.Disconnect(now, "the service goes on alone as a whole") })
		}
	}
}

// mustPart reports whether some volume has met the peer and can resync it only
// alone: for that one no connection is an answer, so the others wait for the right
// as well instead of coming back each time.
func (s *service) mustPart() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for v, a := range s.asked {
		if a == mirror.AskAlone && v.status.Load().Session == mirror.Comparing {
			return true
		}
	}
	return false
}

// leaveSilent: a peer that is silent for the service's timeout, on every path or on
// the one that a volume uses, is lost to a primary there, though the connection
// may seem to stand: clients wait for that time, and not for peer-timeout.
func (s *service) leaveSilent(m *failover.Machine) {
	if !m.Serving() {
		return
	}
	for _, v := range s.volumes {
		k, st := v.linked.Load(), v.status.Load().Session
		if k == nil || st != mirror.Mirroring && st != mirror.Resyncing {
			continue
		}
		why := s.node.peer.Name + " is silent on every path"
		if m.PeerAudible() {
			if !s.node.peers.silent(k.remote, s.cfg.Pace.Timeout) {
				continue
			}
			why = s.node.peer.Name + " is silent at " + k.remote
		}
		v.post(func(now time.Duration) { v.engine.Disconnect(now, why) })
	}
}

func (s *service) anyAsked(a mirror.Ask) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.asked {
		if a == b {
			return true
		}
	}
	return false
}

func (s *service) hasAsked(v *volume) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.asked[v]
	return ok
}
