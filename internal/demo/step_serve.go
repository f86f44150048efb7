// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"time"
)

// serve: the operator says on which node the service begins.
func (d *demo) serve(ctx context.Context) error {
	p := d.pair
	d.story.chapter("`twinbd prim " + serviceName + "` on " + p.primary.name)
	began := time.Now()
	if err := p.primary.act(ctx, "prim"); err != nil {
		return err
	}
	served := time.Now()
	st, err := p.awaitPair(ctx, 0)
	if err != nil {
		return err
	}
	d.story.say("%s serves after %s, and has %s as its secondary after another %s",
		p.primary.name, timeText(served.Sub(began)), p.secondary.name, timeText(time.Since(served)))
	d.story.say("%s PRIM, %s SECOND, epoch %d, generation %s: blank disks are equal, nothing was copied",
		p.primary.name, p.secondary.name, st.Epoch, st.Volumes[0].Generation)
	d.story.say("NBD URI: %s", p.primary.uri())
	return nil
}
