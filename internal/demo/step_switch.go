// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"fmt"
	"time"

	"github.com/twinbd/twinbd/control"
)

// switchOver: the operator exchanges the nodes. Both have everything before and
// after, so that nothing is copied.
func (d *demo) switchOver(ctx context.Context) error {
	p := d.pair
	title := fmt.Sprintf("`twinbd switch %s`: from %s to %s", serviceName, p.primary.name, p.secondary.name)
	return d.underLoad(ctx, title, func(ctx context.Context, load *load) error {
		before, err := p.primary.status(ctx)
		if err != nil {
			return err
		}
		after, err := p.secondary.lastEvent(ctx)
		if err != nil {
			return err
		}
		done := make(chan error, 1)
		asked := time.Now()
		go func() { done <- p.primary.act(ctx, "switch") }()
		last, err := load.lost(ctx)
		if err != nil {
			return err
		}
		client, acknowledged, err := d.reconnect(ctx)
		if err != nil {
			return err
		}
		defer client.Close()
		if err := <-done; err != nil {
			return err
		}
		p.exchange()
		served, err := p.primary.when(ctx, after, wantedEvent{what: "volume primary", kind: "role", to: "primary"})
		if err != nil {
			return err
		}
		d.story.say("the writers paused for %s; from the command to the first write acknowledged by %s: %s",
			timeText(acknowledged.Sub(last)), p.primary.name, timeText(acknowledged.Sub(asked)))
		if err := d.story.parts(timeline{
			{"switch asked for", asked}, {"last write acknowledged by " + p.secondary.name, last},
			{"volume primary on " + p.primary.name, served}, {"first write acknowledged there", acknowledged},
		}); err != nil {
			return err
		}
		if err := d.checkLedger(client); err != nil {
			return err
		}
		return d.exchanged(ctx, before, row{what: "planned switch", pause: acknowledged.Sub(last)}, asked)
	})
}

// exchanged holds that the pair is whole again without a copy.
func (d *demo) exchanged(ctx context.Context, before *control.ServiceStatus, r row, began time.Time) error {
	p := d.pair
	pair, err := p.awaitPair(ctx, before.Epoch)
	if err != nil {
		return err
	}
	r.took = time.Since(began)
	d.story.say("%s is PRIM and %s SECOND in epoch %d", p.primary.name, p.secondary.name, pair.Epoch)
	if copied := pair.Volumes[0].Counters.ResyncedBytes; copied != 0 {
		return fmt.Errorf("a switch of two equal disks copied %d bytes", copied)
	}
	d.rows = append(d.rows, r)
	return d.compareDisks()
}
