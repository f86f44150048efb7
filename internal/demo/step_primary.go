// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"fmt"
	"time"

	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/nbd"
)

// losePrimary: the operator lets the secondary serve, which has every
// acknowledged write; the dead one follows when it is back.
func (d *demo) losePrimary(ctx context.Context) error {
	p := d.pair
	d.story.chapter("Kill the primary, " + p.primary.name + ", under write load")
	load, err := d.startLoad(ctx, p.primary)
	if err != nil {
		return err
	}
	defer load.abandon()
	if err := d.warmUp(ctx, load); err != nil {
		return err
	}
	downtime, err := d.takeOver(ctx, load)
	if err != nil {
		return err
	}
	return d.returnAsSecondary(ctx, downtime)
}

// takeOver kills the primary, makes the other serve, and reads every
// acknowledged write there before the dead one can help. It returns the time
// without service.
func (d *demo) takeOver(ctx context.Context, load *load) (time.Duration, error) {
	p := d.pair
	pid, killed := p.primary.process.pid(), time.Now()
	if err := p.primary.process.kill(); err != nil {
		return 0, err
	}
	noticed, err := load.lost(ctx)
	if err != nil {
		return 0, err
	}
	p.exchange()
	asked := time.Now()
	if err := p.primary.prim(ctx); err != nil {
		return 0, err
	}
	served := time.Now()
	client, err := nbd.Dial(ctx, p.primary.uri(), nil)
	if err != nil {
		return 0, fmt.Errorf("connect to %s: %w", p.primary.name, err)
	}
	defer client.Close()
	connected := time.Now()
	if err := d.firstWrite(client); err != nil {
		return 0, err
	}
	acknowledged := time.Now()
	d.story.say("SIGKILL to pid %d; `twinbd prim %s` on %s; from the kill to the first write acknowledged there: %s",
		pid, serviceName, p.primary.name, timeText(acknowledged.Sub(killed)))
	d.story.say("  the writers notice %s, prim %s, connect %s, first write %s", timeText(noticed.Sub(killed)),
		timeText(served.Sub(asked)), timeText(connected.Sub(served)), timeText(acknowledged.Sub(connected)))
	return acknowledged.Sub(killed), d.checkLedger(client)
}

// firstWrite writes one block that no writer had.
func (d *demo) firstWrite(client *nbd.Client) error {
	content := make([]byte, block.Size)
	index := d.ledger.spare()
	d.ledger.begin(index, content)
	if err := client.WriteAt(content, d.ledger.at(index), 0); err != nil {
		return fmt.Errorf("first write: %w", err)
	}
	d.ledger.end(index)
	return nil
}

// checkLedger reads every block that the load wrote.
func (d *demo) checkLedger(r reader) error {
	acknowledged, underWay, err := d.ledger.verify(r)
	if err != nil {
		return fmt.Errorf("an acknowledged write is lost on %s: %w", d.pair.primary.name, err)
	}
	d.story.say("every acknowledged write is on %s: %d blocks hold the last one, %d the one that was under way, 0 lost",
		d.pair.primary.name, acknowledged, underWay)
	return nil
}

// returnAsSecondary: the load goes on at the new primary, and the old one comes
// back to follow it.
func (d *demo) returnAsSecondary(ctx context.Context, downtime time.Duration) error {
	p := d.pair
	load, err := d.startLoad(ctx, p.primary)
	if err != nil {
		return err
	}
	defer load.abandon()
	if err := load.keepUp(ctx, loadTime); err != nil {
		return err
	}
	alone, err := p.primary.status(ctx)
	if err != nil {
		return err
	}
	writes, blocks := d.ledger.counted()
	d.story.say("%s serves alone in epoch %d: %d writes to %d blocks; %d blocks are marked dirty",
		p.primary.name, alone.Epoch, writes, blocks, alone.Volumes[0].DirtyBlocks)
	back, err := d.bringBack(ctx, load, alone)
	if err != nil {
		return err
	}
	back.what, back.pause, back.dirty = "primary killed", downtime, alone.Volumes[0].DirtyBlocks
	d.rows = append(d.rows, back)
	return nil
}
