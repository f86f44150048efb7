// SPDX-License-Identifier: Apache-2.0

package node

import (
	"cmp"
	"fmt"
	"time"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/control"
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
	s.mu.Lock()
	role, right, state, why, since := s.role, s.right, s.state, s.why, s.since
	s.mu.Unlock()
	st := control.ServiceStatus{
		Name: s.cfg.Name, Epoch: state.Epoch, Maintenance: state.Maintenance, Role: "none",
		Peer: control.PeerStatus{Name: s.node.peer.Name, Connection: "connecting", Since: since},
	}
	mirrored, connected, peerServes, behind := true, true, false, ""
	for _, v := range s.volumes {
		m := v.status.Load()
		st.Volumes = append(st.Volumes, s.volumeStatus(v, m))
		mirrored = mirrored && m.Session == mirror.Mirroring
		connected = connected && m.Session >= mirror.Comparing
		peerServes = peerServes || m.PeerPrimary
		if m.Session != mirror.Mirroring && behind == "" {
			behind = fmt.Sprintf("volume %s: %s", v.cfg.Name, sessionText(m))
		}
		if k := v.linked.Load(); k != nil {
			st.Peer.Address = k.remote
		}
	}
	if connected {
		st.Peer.Connection = "connected"
	} else {
		s.node.peers.mu.Lock()
		st.Peer.Problem = cmp.Or(s.node.peers.problem, s.node.peers.refused)
		s.node.peers.mu.Unlock()
	}
	s.judge(&st, role, mirrored, peerServes, behind)
	if role == rolePrimary && !mirrored && right != mirror.RightAlone {
		st.Colour = control.NotReady
		st.Reason = "holds all requests until it may go on alone: clients wait, nothing fails; " + behind
	}
	if why != "" {
		st.Reason += "; " + why
		if st.Colour == control.Ready {
			st.Colour = control.Transient
		}
	}
	return st
}

// judge gives the state in SafeKit's words, and one sentence why.
func (s *service) judge(st *control.ServiceStatus, role role, mirrored, peerServes bool, behind string) {
	peer := s.node.peer.Name
	switch {
	case role == rolePrimary && mirrored:
		st.State, st.Colour, st.UpToDate, st.Role = control.Primary, control.Ready, true, "primary"
		st.Reason = fmt.Sprintf("serves; %s has every write", peer)
	case role == rolePrimary:
		st.State, st.Colour, st.UpToDate, st.Role = control.Alone, control.Transient, true, "primary"
		st.Reason = "serves alone; " + behind
	case mirrored && peerServes:
		st.State, st.Colour, st.UpToDate, st.Role = control.Secondary, control.Ready, true, "secondary"
		st.Reason = fmt.Sprintf("follows %s and has every write", peer)
	case peerServes:
		st.State, st.Colour, st.Role = control.Secondary, control.Transient, "secondary"
		st.Reason = fmt.Sprintf("catches up with %s; %s", peer, behind)
	case mirrored:
		st.State, st.Colour, st.UpToDate = control.Wait, control.Transient, true
		st.Reason = fmt.Sprintf("both nodes have the same data and none serves: run `twinbd prim %s` on one", s.cfg.Name)
	case role == roleLost:
		st.State, st.Colour = control.Wait, control.NotReady
		st.Reason = fmt.Sprintf("the record names %s: waits to follow it; %s", peer, behind)
	default:
		st.State, st.Colour = control.Wait, control.Transient
		st.Reason = fmt.Sprintf("waits for %s, or for `twinbd prim %s`; %s", peer, s.cfg.Name, behind)
	}
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
	if v.cfg.Device != nil {
		st.Device = v.cfg.Device[s.node.self.Name]
	}
	st.Resync = s.progress(v, m)
	if m.DiskFailed != "" {
		st.Problems = append(st.Problems, control.VolumeProblem{
			Message: "the disk has failed: " + m.DiskFailed, Hint: "replace it and run `twinbd create --anew " + v.cfg.Name + "`",
		})
	}
	if m.Session == mirror.Mirroring && m.DirtyBlocks > 0 {
		st.Problems = append(st.Problems, control.VolumeProblem{
			Message: fmt.Sprintf("%d blocks differ although the disks are mirrored: a verify found them", m.DirtyBlocks),
			Hint:    "`twinbd resync` copies them from the primary",
		})
	}
	return st
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
