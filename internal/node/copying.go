// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"fmt"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/mirror"
)

// What an operator asks of the volumes: verify, resync.

// chosen are the volumes that an action is about.
func (s *service) chosen(a control.Action) ([]*volume, error) {
	if a.Volume == "" {
		return s.volumes, nil
	}
	for _, v := range s.volumes {
		if v.cfg.Name == a.Volume {
			return []*volume{v}, nil
		}
	}
	return nil, fmt.Errorf("volume %q does not belong to service %s", a.Volume, s.cfg.Name)
}

// verify compares the disks of the volumes, one after the other.
func (s *service) verify(ctx context.Context, a control.Action, progress func(control.Progress)) error {
	volumes, err := s.chosen(a)
	if err != nil {
		return err
	}
	var different int64
	for _, v := range volumes {
		v.do(func(now time.Duration) {
			err = v.engine.Verify(now, a.Args["repair"] == "true")
		})
		if err != nil {
			return fmt.Errorf("verify %s: %w", v.cfg.Name, err)
		}
		for {
			st := v.status.Load()
			p := st.Verify
			progress(control.Progress{Text: "verify " + v.cfg.Name, Done: p.Done * block.Size, Total: p.Total * block.Size})
			if p.Ended != 0 {
				if p.Done != p.Total {
					return fmt.Errorf("verify %s %s", v.cfg.Name, st.Verified)
				}
				different += p.Different
				break
			}
			if wait(ctx, mirror.TickEvery); ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	switch {
	case different == 0:
		return nil
	case a.Args["repair"] == "true":
		progress(control.Progress{Text: fmt.Sprintf("%d blocks differ and are being copied from %s", different, s.node.self.Name)})
		return s.caughtUp(ctx, volumes, progress)
	}
	return &control.Refusal{
		Message: fmt.Sprintf("%d blocks (%d KiB) differ between the disks", different, different*block.Size>>10),
		Hint:    "find out which disk is wrong; `twinbd verify --repair` or `twinbd resync` copies from the primary",
	}
}

// resync copies marked blocks, or all, to the peer.
func (s *service) resync(ctx context.Context, a control.Action, progress func(control.Progress)) error {
	volumes, err := s.chosen(a)
	if err != nil {
		return err
	}
	for _, v := range volumes {
		v.do(func(now time.Duration) {
			err = v.engine.Resync(now, a.Args["full"] == "true")
		})
		if err != nil {
			return fmt.Errorf("resync %s: %w", v.cfg.Name, err)
		}
	}
	return s.caughtUp(ctx, volumes, progress)
}

// caughtUp waits until the volumes are mirrored again.
func (s *service) caughtUp(ctx context.Context, volumes []*volume, progress func(control.Progress)) error {
	for _, v := range volumes {
		for {
			st := v.status.Load()
			if st.Session == mirror.Mirroring && st.DirtyBlocks == 0 {
				break
			}
			text := "waiting for " + s.node.peer.Name
			if st.Session == mirror.Resyncing {
				text = "resync " + v.cfg.Name
			}
			progress(control.Progress{Text: text, Done: st.Resync.Done * block.Size, Total: st.Resync.Total * block.Size})
			if wait(ctx, mirror.TickEvery); ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	return nil
}
