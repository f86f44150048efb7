// SPDX-License-Identifier: Apache-2.0

package node

import (
	"cmp"
	"fmt"
	"time"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/failover"
	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/mirror"
)

// Status shows the node (control.Backend). It waits for nobody: volumes publish
// what they are.
func (n *Node) Status() control.Status {
	st := control.Status{Cluster: n.cfg.Cluster, Node: n.self.Name, Peer: n.peer.Name, Version: n.version, Time: time.Now()}
	for _, s := range n.services {
		st.Services = append(st.Services, s.status())
	}
	return st
}

func (s *service) status() control.ServiceStatus {
	m := &s.shown.Load().machine
	s.mu.Lock()
	since, peer := s.since, s.about
	s.mu.Unlock()
	d := m.Durable()
	st := control.ServiceStatus{
		Name: s.cfg.Name, State: control.State(m.State()), Colour: control.Colour(m.Colour()), UpToDate: m.UpToDate(),
		Reason: m.Reason(), Role: "none", Epoch: d.View.Epoch, Maintenance: d.Maintenance,
		Peer: control.PeerStatus{Name: s.node.peer.Name, Connection: "connecting", Since: since},
	}
	switch {
	case m.Serving():
		st.Role = "primary"
	case st.State == control.Secondary:
		st.Role = "secondary"
	}
	connected, behind := true, ""
	for _, v := range s.volumes {
		ms := v.status.Load()
		st.Volumes = append(st.Volumes, s.volumeStatus(v, ms))
		connected = connected && ms.Session >= mirror.Comparing
		if ms.Session != mirror.Mirroring && behind == "" {
			behind = fmt.Sprintf("volume %s: %s", v.cfg.Name, sessionText(ms))
		}
		if k := v.linked.Load(); k != nil {
			st.Peer.Address = k.remote
		}
	}
	if behind != "" && st.State != control.Stop {
		st.Reason += "; " + behind
	}
	if m.PeerAudible() {
		st.Peer.State = peer.State
	}
	s.judgePeer(&st.Peer, m, connected)
	st.Problems = s.problems(m)
	return st
}

// judgePeer says how this node stands with the other.
func (s *service) judgePeer(p *control.PeerStatus, m *failover.Machine, connected bool) {
	p.Problem = s.node.peers.problem()
	switch {
	case connected:
		p.Connection, p.Problem = "connected", ""
	case m.PeerAudible():
		p.Problem = cmp.Or(p.Problem, "it is heard, and the volumes are not connected")
	}
}

// problems are what somebody should look at, besides the state.
func (s *service) problems(m *failover.Machine) []control.Problem {
	n := s.node
	var list []control.Problem
	add := func(message, hint string) {
		if message != "" {
			list = append(list, control.Problem{Message: message, Hint: hint})
		}
	}
	n.mu.Lock()
	differs, clocks, witness := n.differs, n.clocks, n.witnessProblem
	n.mu.Unlock()
	add(clocks, "nothing depends on it but the times in the logs; set up NTP on both")
	add(differs, "use the same file on both nodes")
	if n.witness != nil && !m.ReachesWitness() && witness != "" {
		add("the witness is not reached: "+witness, "start `twinbd witness` there, or look at the network between")
	}
	add(s.app.addresses.trouble(), "")
	if m.Settings().Arbiter == failover.ByPing {
		add("a router stands in for a witness: after a network cut both nodes may serve; that is found, and nothing is discarded without you",
			"set up `twinbd witness` on any third machine")
	}
	return list
}

// sessionText says in a few words how a volume stands with the peer.
func sessionText(m *mirror.Status) string {
	switch m.Session {
	case mirror.Resyncing:
		return fmt.Sprintf("resync, %d of %d blocks to go", m.DirtyBlocks, m.Resync.Total)
	case mirror.Disconnected:
		if m.Reason == "" {
			return "not connected"
		}
		return "not connected: " + m.Reason
	}
	return fmt.Sprintf("%s: %s", m.Session, m.Reason)
}

func (s *service) volumeStatus(v *volume, m *mirror.Status) control.VolumeStatus {
	st := control.VolumeStatus{
		Name: v.cfg.Name, Size: v.cfg.Size, Disk: diskText(m), DiskPath: v.cfg.Disk[s.node.self.Name],
		Generation: m.Generation.String(), DirtyBlocks: m.DirtyBlocks, DirtyBytes: m.DirtyBlocks * block.Size,
		Export: v.cfg.Export[s.node.self.Name].URI(v.cfg.Name),
		Counters: control.VolumeCounters{
			Reads: m.Counters.Reads, ReadBytes: uint64(m.Counters.ReadBytes),
			Writes: m.Counters.Writes, WriteBytes: uint64(m.Counters.WriteBytes), Flushes: m.Counters.Flushes,
			SentBytes: uint64(m.Counters.SentBytes), ResyncedBytes: uint64(m.Counters.ResyncedBytes),
		},
	}
	if v.device != nil {
		var problem error
		st.Device = v.device.path
		if st.DeviceState, problem = v.device.state(); problem != nil {
			r := control.Refuse(problem)
			st.Problems = append(st.Problems, control.Problem{Message: r.Message, Hint: r.Hint})
		}
	}
	st.Resync = s.progress(v, m)
	if m.DiskFailed != "" {
		st.Problems = append(st.Problems, control.Problem{Message: "the disk has failed: " + m.DiskFailed, Hint: s.failedHint(v, m)})
	}
	if m.DiskSilent != "" {
		st.Problems = append(st.Problems, control.Problem{
			Message: fmt.Sprintf("clients wait for the disk %s, the last good copy: %s", v.store.diskPath(), m.DiskSilent),
			Hint:    "look at the kernel's log and the disk's controller; when it answers, the service goes on",
		})
	}
	switch {
	case m.Unrelated:
		st.Problems = append(st.Problems, control.Problem{
			Message: "the two disks have no history in common: nothing is copied, and nobody but you can know which one is right",
			Hint:    "put the right disk back; or `twinbd resolve " + v.cfg.Name + "` shows both, and keeps the one that you say",
		})
	case m.Split:
		st.Problems = append(st.Problems, control.Problem{
			Message: fmt.Sprintf("split brain: both nodes have writes that the other lacks; %d blocks (%d KiB) are this node's own", m.DirtyBlocks, m.DirtyBlocks*block.Size>>10),
			Hint:    "`twinbd resolve " + v.cfg.Name + "` shows both sides, and ends it as you say",
		})
	}
	if m.Session == mirror.Mirroring && m.DirtyBlocks > 0 {
		st.Problems = append(st.Problems, control.Problem{
			Message: fmt.Sprintf("%d blocks differ although the disks are mirrored: a verify found them", m.DirtyBlocks),
			Hint:    "`twinbd resync` copies them from the primary",
		})
	}
	return st
}

// failedHint is what to do about a failed disk. One that may be the only copy is
// not to be wiped on our word.
func (s *service) failedHint(v *volume, m *mirror.Status) string {
	if m.Session == mirror.Hosting || s.shown.Load().machine.PeerServes() {
		return "replace it and run `twinbd create --anew " + v.cfg.Name + "`"
	}
	return fmt.Sprintf("no good copy is known to be at %s: keep this disk; the guide says how to serve from it all the same", s.node.peer.Name)
}

// progress is nil when neither a resync nor a verify runs.
func (s *service) progress(v *volume, m *mirror.Status) *control.ResyncStatus {
	p, kind, source := m.Resync, "resync", s.node.peer.Name
	switch {
	case m.Verify.Began != 0 && m.Verify.Ended == 0:
		p, kind = m.Verify, "verify"
	case m.Session != mirror.Resyncing:
		return nil
	}
	if m.Source || kind == "verify" {
		source = s.node.self.Name
	}
	r := &control.ResyncStatus{Kind: kind, Source: source, Done: p.Done * block.Size, Total: p.Total * block.Size, ETA: -1}
	if took := v.loop.Clock() - p.Began; took > 0 && p.Done > 0 {
		r.Rate = int64(float64(r.Done) / took.Seconds())
		if r.Rate > 0 {
			r.ETA = float64(max(r.Total-r.Done, 0)) / float64(r.Rate)
		}
	}
	return r
}

// diskText is what the local disk is worth, in DRBD's words.
func diskText(m *mirror.Status) string {
	switch m.State {
	case bitmap.Consistent:
		return "uptodate"
	case bitmap.Inconsistent:
		return "inconsistent"
	case bitmap.Failed:
		return "failed"
	case bitmap.Blank:
		return "blank"
	}
	return "none"
}
