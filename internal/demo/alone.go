// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"

	"github.com/twinbd/twinbd/control"
)

// goOnAlone kills the secondary and waits until the primary has written for a
// while without it. It returns the primary's status then.
func (d *demo) goOnAlone(ctx context.Context, load *load) (*control.ServiceStatus, error) {
	p := d.pair
	before, err := p.primary.status(ctx)
	if err != nil {
		return nil, err
	}
	pid := p.secondary.process.pid()
	load.mark()
	if err := p.secondary.process.kill(); err != nil {
		return nil, err
	}
	_, err = p.primary.await(ctx, "ALONE", func(st *control.ServiceStatus) bool {
		return st.State == control.Alone && st.Epoch > before.Epoch && st.Volumes[0].Generation != before.Volumes[0].Generation
	})
	if err != nil {
		return nil, err
	}
	if err := load.keepUp(ctx, loadTime); err != nil {
		return nil, err
	}
	alone, err := p.primary.status(ctx)
	if err != nil {
		return nil, err
	}
	writes, blocks := d.ledger.counted()
	d.story.say("SIGKILL to pid %d: the writers paused for %s, no write failed", pid, timeText(load.pause()))
	d.story.say("%s goes on alone: epoch %d is now %d, generation %s is now %s",
		p.primary.name, before.Epoch, alone.Epoch, before.Volumes[0].Generation, alone.Volumes[0].Generation)
	d.story.say("since then %d writes to %d blocks were acknowledged; %d blocks (%s) are marked dirty",
		writes, blocks, alone.Volumes[0].DirtyBlocks, bytesText(alone.Volumes[0].DirtyBytes))
	return alone, nil
}
