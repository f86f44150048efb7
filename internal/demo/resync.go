// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"fmt"
	"time"

	"github.com/twinbd/twinbd/control"
)

// bringBack starts the dead node, waits until it follows again, ends the load
// and compares the disks. alone is the primary's status before; r is what the
// summary says so far.
func (d *demo) bringBack(ctx context.Context, load *load, alone *control.ServiceStatus, r row) error {
	p := d.pair
	began := time.Now()
	load.mark()
	if err := p.secondary.start(ctx); err != nil {
		return err
	}
	d.story.say("%s is back, pid %d", p.secondary.name, p.secondary.process.pid())
	v := &alone.Volumes[0]
	r.dirty = v.DirtyBlocks
	if err := d.catchUp(ctx, &r, alone.Epoch, v.Counters.ResyncedBytes, began); err != nil {
		return err
	}
	writes, _ := d.ledger.counted()
	d.story.say("meanwhile %d writes were acknowledged, with %s between any two at most", writes, timeText(load.pause()))
	if err := load.finish(); err != nil {
		return err
	}
	d.rows = append(d.rows, r)
	return d.compareDisks()
}

// catchUp waits until the secondary follows, in an epoch above the given one,
// and holds that only what may differ was copied. The primary had copied so many
// bytes before; the node that returned was started when the time began.
func (d *demo) catchUp(ctx context.Context, r *row, above, copiedBefore uint64, began time.Time) error {
	p := d.pair
	pair, err := p.awaitPair(ctx, above)
	if err != nil {
		return err
	}
	r.took, r.copied = time.Since(began), int64(pair.Volumes[0].Counters.ResyncedBytes-copiedBefore)
	d.story.say("%s is PRIM and %s SECOND in epoch %d, %s after the start",
		p.primary.name, p.secondary.name, pair.Epoch, timeText(r.took))
	d.story.say("copied from %s to %s: %s, %s of the volume's %s",
		p.primary.name, p.secondary.name, bytesText(r.copied), shareText(r.copied, d.layout.size), bytesText(d.layout.size))
	if most := d.layout.mayDiffer(); r.copied > most {
		return fmt.Errorf("the resync copied %d bytes, more than the %d that writes and intents can stand for", r.copied, most)
	}
	return nil
}
