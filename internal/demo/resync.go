// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"fmt"
	"time"

	"github.com/twinbd/twinbd/control"
)

// bringBack starts the dead node, waits until it follows again, ends the load
// and compares the disks. alone is the primary's status before.
func (d *demo) bringBack(ctx context.Context, load *load, alone *control.ServiceStatus) (row, error) {
	p := d.pair
	began := time.Now()
	load.mark()
	if err := p.secondary.start(ctx); err != nil {
		return row{}, err
	}
	d.story.say("%s is back, pid %d", p.secondary.name, p.secondary.process.pid())
	r, err := d.catchUp(ctx, alone, p.secondary, began)
	if err != nil {
		return row{}, err
	}
	writes, _ := d.ledger.counted()
	d.story.say("meanwhile %d writes were acknowledged, with %s between any two at most", writes, timeText(load.pause()))
	if err := load.finish(); err != nil {
		return row{}, err
	}
	return r, d.compareDisks()
}

// catchUp waits until the secondary follows, and holds that only what may differ
// was copied. back is the node that was started last, and when. It returns what
// a row says of that.
func (d *demo) catchUp(ctx context.Context, alone *control.ServiceStatus, back *member, started time.Time) (row, error) {
	p := d.pair
	pair, err := p.awaitPair(ctx, alone.Epoch)
	if err != nil {
		return row{}, err
	}
	took, copied := time.Since(started), int64(pair.Volumes[0].Counters.ResyncedBytes)
	d.story.say("%s is PRIM and %s SECOND in epoch %d, %s after the start of pid %d",
		p.primary.name, p.secondary.name, pair.Epoch, timeText(took), back.process.pid())
	d.story.say("copied from %s to %s: %s, %s of the volume's %s",
		p.primary.name, p.secondary.name, bytesText(copied), shareText(copied, d.layout.size), bytesText(d.layout.size))
	if most := d.layout.mayDiffer(); copied > most {
		return row{}, fmt.Errorf("the resync copied %d bytes, more than the %d that writes and intents can stand for", copied, most)
	}
	return row{copied: copied, took: took}, nil
}
