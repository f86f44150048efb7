// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
)

// loseSecondary: the primary goes on alone, and copies what the secondary
// missed when it is back.
func (d *demo) loseSecondary(ctx context.Context) error {
	title := "Kill the secondary, " + d.pair.secondary.name
	return d.underLoad(ctx, title, func(ctx context.Context, load *load) error {
		alone, err := d.goOnAlone(ctx, load)
		if err != nil {
			return err
		}
		return d.bringBack(ctx, load, alone, row{what: "secondary killed", pause: load.pause()})
	})
}
