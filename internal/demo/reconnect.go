// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"fmt"
	"time"

	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/nbd"
)

// tryEvery is how often a client that has lost its server looks for another.
const tryEvery = time.Millisecond

// reconnect does what a client does that knows where both nodes are: it tries
// one and the other until one takes a write, to a block that no writer has. It
// returns when that was acknowledged.
func (d *demo) reconnect(ctx context.Context) (*nbd.Client, time.Time, error) {
	limit, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	content := make([]byte, block.Size)
	index := d.ledger.spare()
	d.ledger.begin(index, content) // one write, however often it is sent
	tick := time.NewTicker(tryEvery)
	defer tick.Stop()
	for {
		var err error
		for _, n := range []*member{d.pair.secondary, d.pair.primary} {
			var client *nbd.Client
			if client, err = n.dial(limit); err != nil {
				continue
			}
			if err = client.WriteAt(content, d.ledger.at(index), 0); err == nil {
				at := time.Now()
				d.ledger.end(index)
				return client, at, nil
			}
			client.Close()
		}
		select {
		case <-tick.C:
		case <-limit.Done():
			return nil, time.Time{}, fmt.Errorf("find the node that serves: %w", err)
		}
	}
}
