// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"fmt"
	"time"
)

// copyIn: a real image goes in and comes back, and is on both disks.
func (d *demo) copyIn(ctx context.Context) error {
	tool := newTransfer()
	d.story.chapter("Copy the image in and read it back")
	began := time.Now()
	if err := tool.in(ctx, d.image, d.pair.primary.uri()); err != nil {
		return fmt.Errorf("copy image in: %w", err)
	}
	took := time.Since(began)
	data, err := dataBytes(d.image)
	if err != nil {
		return fmt.Errorf("read image: %w", err)
	}
	d.story.say("copied %d bytes in by %s, %s of them in blocks that are not zero, and flushed both disks: %s",
		d.image.size, tool, bytesText(data), timeText(took))
	if err := d.compareSums(ctx, tool); err != nil {
		return err
	}
	if err := d.compareDisks(); err != nil {
		return err
	}
	d.rows = append(d.rows, row{what: "image copied in", took: took})
	return nil
}

// compareSums compares what came in with what comes out and with what lies on
// each disk.
func (d *demo) compareSums(ctx context.Context, tool transfer) error {
	p := d.pair
	sources := []struct {
		what string
		sum  func() (string, error)
	}{
		{"the image", func() (string, error) { return sumFile(d.image.path, d.image.size) }},
		{"read back from " + p.primary.name, func() (string, error) { return tool.sum(ctx, p.primary.uri(), d.image.size) }},
		{"the disk of " + p.primary.name, func() (string, error) { return sumFile(p.primary.disk(), d.image.size) }},
		{"the disk of " + p.secondary.name, func() (string, error) { return sumFile(p.secondary.disk(), d.image.size) }},
	}
	var first string
	for i, source := range sources {
		sum, err := source.sum()
		if err != nil {
			return fmt.Errorf("checksum of %s: %w", source.what, err)
		}
		d.story.say("SHA-256 %s  %s", sum, source.what)
		if i == 0 {
			first = sum
		}
		if sum != first {
			return fmt.Errorf("SHA-256 of %s is %s, not %s as that of the image", source.what, sum, first)
		}
	}
	return nil
}
