// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/failover"
	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/mirror"
)

// The end of a split (rule 11), in this order: both sides are shown; the operator
// chooses; what the losing node has of its own is saved to a file, durably; it
// gives its history up, durably; from there on it is any node that catches up.

// side is what this node has of a volume that the peer lacks.
func (v *volume) side() control.SplitSide {
	st, m := v.status.Load(), &v.service.shown.Load().machine
	side := control.SplitSide{
		Node: v.service.node.self.Name, Serves: st.Primary || m.Serving(), Split: st.Split,
		Generation: st.Generation.Hex(), Base: st.Base.Hex(), Forced: st.Forced,
		Unrelated: st.Unrelated, Whole: st.Whole, Blocks: st.DirtyBlocks, Bytes: st.DirtyBlocks * block.Size,
	}
	if side.Whole { // marks say nothing: all of it would be overwritten
		side.Blocks, side.Bytes = (v.cfg.Size+block.Size-1)/block.Size, v.cfg.Size
	}
	for _, e := range v.service.node.events.Since(0) {
		if e.Volume == v.cfg.Name && e.Kind == "session" && e.Old == mirror.Mirroring.String() {
			side.Apart = e.Time
		}
	}
	if info, err := os.Stat(v.cfg.Disk[side.Node]); err == nil && info.Mode().IsRegular() {
		side.LastWrite = info.ModTime()
	}
	return side
}

// splitOf asks both sides. An error says that there is no split to be ended.
func (s *service) splitOf(ctx context.Context, v *volume) (*control.Split, error) {
	peer := s.node.peer.Name
	r, err := s.node.peers.ask(ctx, call{Verb: callSide, Volume: v.cfg.Name})
	if err == nil && r.Side == nil {
		err = errors.New("its version is another one")
	}
	if err != nil {
		return nil, &control.Refusal{
			Message: fmt.Sprintf("%s is not reached, and without it nobody can say what it has: %v", peer, control.Refuse(err).Message),
			Hint:    "bring it back, or its network",
		}
	}
	split := &control.Split{Service: s.cfg.Name, Volume: v.cfg.Name, Sides: []control.SplitSide{v.side(), *r.Side}}
	for i := range split.Sides {
		if !split.Sides[i].Split {
			return nil, &control.Refusal{
				Message: fmt.Sprintf("volume %s is in no split brain, as far as %s knows", v.cfg.Name, split.Sides[i].Node),
				Hint:    "`twinbd status` shows how it stands; two nodes that have just met need a moment",
			}
		}
	}
	return split, nil
}

// theVolume is the one that an action names.
func (s *service) theVolume(a control.Action) (*volume, error) {
	if a.Volume == "" {
		return nil, errors.New("a split is ended volume by volume, and none is named")
	}
	list, err := s.chosen(a)
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

// showSplit is the preview: what each side has.
func (s *service) showSplit(ctx context.Context, a control.Action, progress func(control.Progress)) error {
	v, err := s.theVolume(a)
	if err != nil {
		return err
	}
	split, err := s.splitOf(ctx, v)
	if err != nil {
		return err
	}
	progress(control.Progress{Text: split.Reason(), Split: split})
	return nil
}

// resolve ends a split: the node that is not kept gives up, wherever this was
// asked; then the kept one copies.
func (s *service) resolve(ctx context.Context, a control.Action, progress func(control.Progress)) error {
	v, err := s.theVolume(a)
	if err != nil {
		return err
	}
	switch keep := a.Args["keep"]; keep {
	case s.node.self.Name:
		err = s.pass(ctx, a, progress)
	case s.node.peer.Name:
		err = s.giveUp(ctx, a, progress)
	default:
		return fmt.Errorf("node %q is none of the two: keep %s or %s", keep, s.node.self.Name, s.node.peer.Name)
	}
	if err != nil {
		return err
	}
	return s.copied(ctx, v, a.Args["keep"], progress)
}

// giveUp is the losing node's part.
func (s *service) giveUp(ctx context.Context, a control.Action, progress func(control.Progress)) error {
	v, err := s.theVolume(a)
	if err != nil {
		return err
	}
	if !v.resolving.TryLock() {
		return &control.Refusal{Message: fmt.Sprintf("the split of %s is just being resolved", v.cfg.Name)}
	}
	defer v.resolving.Unlock()
	split, err := s.splitOf(ctx, v)
	if err != nil {
		return err
	}
	if err := s.mayGiveUp(a, split); err != nil {
		return err
	}
	var changes mirror.Changes
	if !v.do(func(time.Duration) { changes = v.engine.Changes() }) {
		return errStopping
	}
	path, err := s.saveChanges(ctx, v, changes, split, progress)
	if err != nil {
		return err
	}
	if err := v.giveUp(ctx, changes); err != nil {
		if _, late := errors.AsType[*unknown](err); !late {
			os.Remove(path) // nothing was given up, so nothing needed to be saved
		}
		return fmt.Errorf("give up what %s has written to %s: %w", s.node.self.Name, v.cfg.Name, err)
	}
	said := fmt.Sprintf("%d blocks of %s are saved in %s on %s", changes.Blocks, v.cfg.Name, path, s.node.self.Name)
	s.event("split", "split", "given up", fmt.Sprintf("the data of %s is kept; %s", s.node.peer.Name, said), a.Who)
	progress(control.Progress{Text: said})
	if s.wanted() {
		return nil
	}
	progress(control.Progress{Text: fmt.Sprintf("%s starts on %s again, to be copied to", s.cfg.Name, s.node.self.Name)})
	return s.command(ctx, failover.Command{Verb: failover.CommandStart, Who: a.Who})
}

// mayGiveUp refuses to lose what the operator has not seen, and what is in use.
func (s *service) mayGiveUp(a control.Action, split *control.Split) error {
	self, peer := s.node.self.Name, s.node.peer.Name
	mine := split.Side(self)
	switch seen := a.Args["generation"]; {
	case a.Args["keep"] != peer:
		return fmt.Errorf("%s is to give its data up, and %q is kept", self, a.Args["keep"])
	case mine.Serves:
		return &control.Refusal{
			Message: fmt.Sprintf("%s serves %s: clients use what would be given up", self, s.cfg.Name),
			Hint:    fmt.Sprintf("`twinbd stop %s` on %s first", s.cfg.Name, self),
		}
	case seen != mine.Generation:
		return &control.Refusal{
			Message: fmt.Sprintf("what %s has is of another generation than what was shown", self),
			Hint:    "look at it again",
		}
	}
	return nil
}

// unknown is the error of something of which nobody knows whether it came true.
type unknown struct{ error }

// giveUp makes the disk inconsistent, durably.
func (v *volume) giveUp(ctx context.Context, c mirror.Changes) error {
	done := make(chan struct{})
	var err error
	if !v.do(func(now time.Duration) {
		err = v.engine.GiveUp(now, c, func() { close(done) })
		v.dispatch()
	}) {
		return errStopping
	}
	if err != nil {
		return err
	}
	tick := time.NewTicker(mirror.TickEvery)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return nil
		case <-tick.C:
			if why := v.status.Load().DiskFailed; why != "" {
				return &unknown{fmt.Errorf("the disk has failed: %s", why)}
			}
		case <-ctx.Done():
			return &unknown{ctx.Err()}
		}
	}
}

// saveChanges writes what this node has of its own to a file, durably.
func (s *service) saveChanges(ctx context.Context, v *volume, c mirror.Changes, split *control.Split, progress func(control.Progress)) (string, error) {
	self, keeper := s.node.self, split.Side(s.node.peer.Name)
	free, err := freeSpace(self.State)
	need := roomFor(c.Runs, v.store.data)
	switch {
	case err != nil && !errors.Is(err, errors.ErrUnsupported):
		return "", fmt.Errorf("look for room to save the blocks: %w", err)
	case err == nil && free < need:
		return "", &control.Refusal{
			Message: fmt.Sprintf("no room to save the blocks of %s: %d bytes are needed in %s, and %d are free", self.Name, need, self.State, free),
			Hint:    "make room there, on the node that gives its data up",
		}
	}
	f := SplitFile{
		Cluster: s.node.cfg.Cluster, Service: s.cfg.Name, Volume: v.cfg.Name, Node: self.Name, Keeper: keeper.Node,
		Time: time.Now(), Size: v.cfg.Size, VolumeID: c.VolumeID, Generation: c.Generation, Base: c.Base,
	}
	if f.KeeperGeneration, err = parseGeneration(keeper.Generation); err != nil {
		return "", err
	}
	path := filepath.Join(self.State, fmt.Sprintf("split-%s-%s.twinbd", v.cfg.Name, f.Time.UTC().Format("20060102T150405.000Z")))
	read := func(p []byte, offset int64) error {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		return v.store.data.ReadAt(p, offset)
	}
	err = saveSplit(path, &f, c.Runs, read, func(done, total int64) {
		progress(control.Progress{Text: "save the blocks of " + self.Name, Done: done, Total: total})
	})
	if err != nil {
		return "", fmt.Errorf("save the blocks of %s: %w", self.Name, err)
	}
	return path, nil
}

// roomFor is how many bytes a file with the blocks may take. What the disk knows
// for holes is stored as zeroes: their number.
func roomFor(runs []bitmap.Run, disk block.Disk) int64 {
	need := int64(4096)
	for _, p := range cut(runs) {
		need += 16
		if offset, length := span(p, disk.Size()); !block.IsHole(disk, offset, length) {
			need += length
		}
	}
	return need
}

// copied waits until the volume is mirrored again, or says what is missing yet.
func (s *service) copied(ctx context.Context, v *volume, keep string, progress func(control.Progress)) error {
	began := s.node.clock()
	limit := 3*s.cfg.Pace.Timeout + meetTimeout
	for ctx.Err() == nil {
		st, m := v.status.Load(), &s.shown.Load().machine
		switch served := m.Serving() || m.PeerAudible() && m.PeerServes(); {
		case st.Session == mirror.Mirroring && st.DirtyBlocks == 0:
			progress(control.Progress{Text: fmt.Sprintf("%s is the same on both nodes, as it was on %s", v.cfg.Name, keep)})
			return nil
		case st.Session == mirror.Resyncing:
			progress(control.Progress{Text: "resync " + v.cfg.Name, Done: st.Resync.Done * block.Size, Total: st.Resync.Total * block.Size})
		case st.Split:
			progress(control.Progress{Text: "the nodes meet again"})
		case !served && s.node.clock()-began > limit:
			progress(control.Progress{Text: fmt.Sprintf("nobody serves %s: `twinbd prim %s` on %s begins the copying", s.cfg.Name, s.cfg.Name, keep)})
			return nil
		default:
			progress(control.Progress{Text: "waiting for the copying from " + keep})
		}
		wait(ctx, mirror.TickEvery)
	}
	return ctx.Err()
}
