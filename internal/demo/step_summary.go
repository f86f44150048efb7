// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
)

// row is one line of the summary. What was not measured is zero.
type row struct {
	what   string
	pause  time.Duration // without an acknowledgement
	dirty  int64         // blocks known to differ before the dead node was back
	copied int64         // bytes of the resync
	took   time.Duration // from the dead node's start until it followed
}

// summary: the numbers side by side. Whoever comes here has compared the disks
// after every step.
func (d *demo) summary(ctx context.Context) error {
	d.story.chapter("Summary")
	if err := d.checkFileSystem(ctx); err != nil {
		return err
	}
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "WHAT\tPAUSE\tDIRTY BLOCKS\tCOPIED\tOF THE VOLUME\tTIME\tDISKS")
	for _, r := range d.rows {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\tequal\n", r.what, r.pauseText(), r.resyncText(d.layout.size), timeText(r.took))
	}
	table.Flush()
	for line := range strings.Lines(text.String()) {
		d.story.say("%s", strings.TrimSpace(line))
	}
	d.story.say("all of it in %s", timeText(time.Since(d.story.began)))
	return nil
}

func (r row) pauseText() string {
	if r.pause == 0 {
		return "-"
	}
	return timeText(r.pause)
}

func (r row) resyncText(size int64) string {
	if r.copied == 0 {
		return "-\t-\t-"
	}
	return fmt.Sprintf("%d\t%s\t%s", r.dirty, bytesText(r.copied), shareText(r.copied, size))
}
