// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/twinbd/twinbd/control"
)

type eventsOptions struct {
	service string // empty: all
	follow  bool
	json    bool
	since   uint64
}

func newEventsCommand() *cobra.Command {
	var o eventsOptions
	c := &cobra.Command{
		Use:   "events [SERVICE]",
		Short: "show what has changed on this node, why, and who asked",
		Long: `Show the changes that this node remembers since it started, the oldest first: when,
of what, from what to what, the reason, and who asked for it. With --json there is
one object per line, with a sequence number from which --since can go on.`,
		Example: `  twinbd events
  twinbd events postgres --follow
  twinbd events --json --since 41`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeService,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				o.service = args[0]
			}
			return runEvents(c, o)
		},
	}
	flags := c.Flags()
	flags.BoolVarP(&o.follow, "follow", "f", false, "show also those to come, until interrupted")
	flags.BoolVar(&o.json, "json", false, "print JSON, an event per line")
	flags.Uint64Var(&o.since, "since", 0, "only events after this sequence `number`")
	return c
}

func runEvents(c *cobra.Command, o eventsOptions) error {
	cfg, self, err := loadSelf(c)
	if err != nil {
		return err
	}
	if o.service != "" && cfg.Service(o.service) == nil {
		return noService(cfg, o.service)
	}
	client := control.NewClient(self.ControlSocket())
	defer client.Close()
	show := newEventPrinter(c.OutOrStdout(), o.json)
	next := o.since + 1
	err = client.Events(c.Context(), o.since, o.follow, func(e control.Event) error {
		if e.Sequence > next {
			fmt.Fprintf(c.ErrOrStderr(), "not kept any more: %s before\n", count(int(e.Sequence-next), "event"))
		}
		next = e.Sequence + 1
		if o.service != "" && e.Service != o.service {
			return nil
		}
		return show(e)
	})
	if o.follow && c.Context().Err() != nil {
		return nil // interrupted: that is how it ends
	}
	return err
}

// eventLine has columns of fixed width, so that what follows later lines up too.
const eventLine = "%-23s  %-16s  %-12s  %-22s  %s\n"

// newEventPrinter returns what prints one event.
func newEventPrinter(w io.Writer, asJSON bool) func(control.Event) error {
	if asJSON {
		encoder := json.NewEncoder(w)
		return func(e control.Event) error { return encoder.Encode(e) }
	}
	begun := false
	return func(e control.Event) error {
		if !begun {
			begun = true
			fmt.Fprintf(w, eventLine, "TIME", "OF", "WHAT", "CHANGE", "REASON (WHO)")
		}
		_, err := fmt.Fprint(w, eventText(e))
		return err
	}
}

func eventText(e control.Event) string {
	of := orDash(e.Service)
	if e.Volume != "" {
		of += "/" + e.Volume
	}
	change := orDash(e.New)
	if e.Old != "" {
		change = e.Old + " -> " + change
	}
	reason := e.Reason
	if e.Who != "" {
		reason = strings.TrimSpace(reason + " (" + e.Who + ")")
	}
	line := fmt.Sprintf(eventLine, e.Time.Local().Format("2006-01-02 15:04:05.000"), of, e.Kind, change, oneLine(reason))
	return strings.TrimRight(line, " \n") + "\n"
}
