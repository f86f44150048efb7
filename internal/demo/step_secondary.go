// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"time"

	"github.com/twinbd/twinbd/control"
)

// loadTime is how long the load runs before and after a death.
const loadTime = 1500 * time.Millisecond

// loseSecondary: the primary goes on alone, and copies what the secondary
// missed when it is back.
func (d *demo) loseSecondary(ctx context.Context) error {
	p := d.pair
	d.story.chapter("Kill the secondary, " + p.secondary.name + ", under write load")
	load, err := d.startLoad(ctx, p.primary)
	if err != nil {
		return err
	}
	defer load.abandon()
	if err := d.warmUp(ctx, load); err != nil {
		return err
	}
	alone, err := d.goOnAlone(ctx, load)
	if err != nil {
		return err
	}
	pause, missed := load.pause(), alone.Volumes[0].DirtyBlocks
	back, err := d.bringBack(ctx, load, alone)
	if err != nil {
		return err
	}
	back.what, back.pause, back.dirty = "secondary killed", pause, missed
	d.rows = append(d.rows, back)
	return nil
}

// warmUp runs the load for a while and says how fast it is.
func (d *demo) warmUp(ctx context.Context, load *load) error {
	began := time.Now()
	if err := load.keepUp(ctx, loadTime); err != nil {
		return err
	}
	writes, _ := d.ledger.counted()
	d.story.say("load: %d writers, 4 KiB each, anywhere in %s: %.0f writes/s, every one on both disks before it is acknowledged",
		writers, bytesText(d.layout.ledger), float64(writes)/time.Since(began).Seconds())
	return nil
}

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
