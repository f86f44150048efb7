// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/twinbd/twinbd/internal/config"
	"github.com/twinbd/twinbd/internal/node"
	"github.com/twinbd/twinbd/internal/trust"
)

// build: keys, a configuration, blank disks, an image, three processes.
func (d *demo) build(ctx context.Context) error {
	fmt.Fprintln(d.Out, "twinbd demo: two nodes and a witness on this machine, all their files in", d.dir)
	d.story.chapter("Build and start a pair")
	if err := d.makeKeys(); err != nil {
		return err
	}
	d.story.say("configuration of all three, %s:", d.pair.config)
	d.story.quote(string(d.pair.text))
	if err := d.createDisks(ctx); err != nil {
		return err
	}
	began := time.Now()
	var err error
	if d.image, err = d.prepareImage(ctx); err != nil {
		return err
	}
	d.story.say("image: %s, %s, ready in %s", d.image.what, bytesText(d.image.size), timeText(time.Since(began)))
	return d.startAll(ctx)
}

// createDisks is `twinbd create --blank` on both nodes.
func (d *demo) createDisks(ctx context.Context) error {
	for _, n := range []*member{d.pair.primary, d.pair.secondary} {
		began := time.Now()
		if err := node.Create(ctx, d.pair.cfg, n.volume, n.name, node.CreateOptions{Blank: true}, nil); err != nil {
			return err
		}
		d.story.say("created %s, blank, %s, in %s", n.disk(), config.FormatSize(d.layout.size), timeText(time.Since(began)))
	}
	return nil
}

func (d *demo) makeKeys() error {
	began, names := time.Now(), d.pair.cfg.KeyNames()
	if err := trust.Init(d.pair.cfg.TLS.Dir, names); err != nil {
		return err
	}
	d.story.say("made keys of %s in %s: nodes and witness talk TLS 1.3", strings.Join(names, ", "), timeText(time.Since(began)))
	return nil
}

func (d *demo) startAll(ctx context.Context) error {
	p := d.pair
	if err := p.startWitness(ctx); err != nil {
		return err
	}
	d.story.say("witness runs: pid %d, %s", p.witness.pid(), strings.Join(p.cfg.Witness.Address, " "))
	for _, n := range []*member{p.primary, p.secondary} {
		if err := n.start(ctx); err != nil {
			return err
		}
		d.story.say("%-5s runs: pid %d, %s", n.name, n.process.pid(), n.uri())
	}
	return nil
}
