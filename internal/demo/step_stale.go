// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/twinbd/twinbd/control"
)

// loseBoth: first the secondary dies, then the primary that went on alone. The
// first one is back alone and must not serve: it lacks acknowledged writes.
func (d *demo) loseBoth(ctx context.Context) error {
	p := d.pair
	title := fmt.Sprintf("Kill the secondary, %s, write on, kill the primary, %s", p.secondary.name, p.primary.name)
	return d.underLoad(ctx, title, func(ctx context.Context, load *load) error {
		alone, err := d.goOnAlone(ctx, load)
		if err != nil {
			return err
		}
		if err := p.primary.process.kill(); err != nil {
			return err
		}
		if _, err := load.lost(ctx); err != nil {
			return err
		}
		d.story.say("SIGKILL to pid %d: both nodes are dead, and only %s has every acknowledged write", p.primary.process.pid(), p.primary.name)
		if err := d.refuseStale(ctx, alone.Epoch); err != nil {
			return err
		}
		return d.returnWithData(ctx, alone)
	})
}

// refuseStale starts the stale node alone and runs `twinbd prim` on it, which
// must be refused with the epoch as the reason.
func (d *demo) refuseStale(ctx context.Context, epoch uint64) error {
	stale := d.pair.secondary
	if err := stale.start(ctx); err != nil {
		return err
	}
	argv := stale.argv("prim", serviceName)
	began := time.Now()
	said, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	took := time.Since(began)
	if err == nil {
		return fmt.Errorf("%s serves although it lacks acknowledged writes: prim was not refused", stale.name)
	}
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() != 1 || !bytes.Contains(said, fmt.Appendf(nil, "epoch %d", epoch)) {
		return fmt.Errorf("prim on %s was not refused for epoch %d: %w: %s", stale.name, epoch, err, strings.Join(strings.Fields(string(said)), " "))
	}
	d.story.say("%s is back alone, pid %d. `twinbd --node %s prim %s` ends with exit code 1 after %s:",
		stale.name, stale.process.pid(), stale.name, serviceName, timeText(took))
	d.story.quote(string(said))
	return nil
}

// returnWithData: the node that has everything is back, serves, and the stale
// one catches up. alone is its status before it died.
func (d *demo) returnWithData(ctx context.Context, alone *control.ServiceStatus) error {
	p := d.pair
	began := time.Now()
	if err := p.primary.start(ctx); err != nil {
		return err
	}
	serves, err := p.primary.await(ctx, "serving", func(st *control.ServiceStatus) bool {
		return st.State == control.Alone || st.State == control.Primary
	})
	if err != nil {
		return err
	}
	d.story.say("%s is back, pid %d, and serves by itself after %s, in epoch %d",
		p.primary.name, p.primary.process.pid(), timeText(time.Since(began)), serves.Epoch)
	client, err := p.primary.dial(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := d.checkLedger(client); err != nil {
		return err
	}
	r := row{what: "both killed", dirty: alone.Volumes[0].DirtyBlocks}
	if err := d.catchUp(ctx, &r, alone.Epoch, 0, began); err != nil {
		return err
	}
	d.rows = append(d.rows, r)
	return d.compareDisks()
}
