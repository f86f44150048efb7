// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"fmt"
	"time"

	"github.com/twinbd/twinbd/nbd"
)

// losePrimary: the secondary, which has every acknowledged write, takes over by
// itself; the dead one follows when it is back.
func (d *demo) losePrimary(ctx context.Context) error {
	title := "Kill the primary, " + d.pair.primary.name
	return d.underLoad(ctx, title, func(ctx context.Context, load *load) error {
		client, pause, err := d.takenOver(ctx, load)
		if err != nil {
			return err
		}
		return d.goOnThere(ctx, client, pause)
	})
}

// takenOver kills the primary, finds the node that serves instead and reads
// every acknowledged write there before the dead one can help. It returns the
// time without service.
func (d *demo) takenOver(ctx context.Context, load *load) (*nbd.Client, time.Duration, error) {
	p := d.pair
	after, err := p.secondary.lastEvent(ctx)
	if err != nil {
		return nil, 0, err
	}
	pid := p.primary.process.pid()
	if err := p.primary.process.kill(); err != nil {
		return nil, 0, err
	}
	last, err := load.lost(ctx)
	if err != nil {
		return nil, 0, err
	}
	client, acknowledged, err := d.reconnect(ctx)
	if err != nil {
		return nil, 0, err
	}
	p.exchange()
	line := timeline{{"last write acknowledged by " + p.secondary.name, last}}
	for _, e := range takeoverEvents {
		at, err := p.primary.when(ctx, after, e)
		if err != nil {
			return nil, 0, err
		}
		line = append(line, moment{e.what, at})
	}
	line = append(line, moment{"first write acknowledged by " + p.primary.name, acknowledged})
	pause := acknowledged.Sub(last)
	d.story.say("SIGKILL to pid %d, and nobody does anything: %s takes over, the writers paused for %s", pid, p.primary.name, timeText(pause))
	if err := d.story.parts(line); err != nil {
		return nil, 0, err
	}
	return client, pause, d.checkLedger(client)
}

// takeoverEvents are what the node that takes over tells of it, in this order.
var takeoverEvents = []wantedEvent{
	{what: "takeover asked for", kind: "ask"},
	{what: "record granted", kind: "epoch"},
	{what: "volume primary", kind: "role", to: "primary"},
}

// goOnThere: the load goes on at the new primary, and the old one comes back to
// follow it.
func (d *demo) goOnThere(ctx context.Context, client *nbd.Client, pause time.Duration) error {
	p := d.pair
	load := d.startLoad(client)
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
	return d.bringBack(ctx, load, alone, row{what: "primary killed", pause: pause})
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
