// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinbd/twinbd/control"
)

// stateNames are the states in the order in which they are explained.
var stateNames = []string{string(control.Stop), string(control.Wait), string(control.Alone), string(control.Primary), string(control.Secondary)}

// lookEvery is the time between two looks of a wait.
const lookEvery = 100 * time.Millisecond

type waitOptions struct {
	service string
	state   control.State
	timeout time.Duration
	ready   bool
}

func newWaitCommand() *cobra.Command {
	var o waitOptions
	c := &cobra.Command{
		Use:   "wait SERVICE STATE",
		Short: "wait until this node is in a state",
		Long: `Wait until this node shows a state for a service: ` + strings.Join(stateNames, ", ") + `. A node that
does not run yet is waited for too. Exit code 1 and the reason when the time is up.`,
		Example: `  twinbd wait postgres SECOND
  twinbd wait postgres PRIM --ready --timeout 5m`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: completeWait,
		RunE: func(c *cobra.Command, args []string) error {
			o.service, o.state = args[0], control.State(strings.ToUpper(args[1]))
			return runWait(c, o)
		},
	}
	durationVar(c.Flags(), &o.timeout, "timeout", time.Minute, "longest `time` to wait")
	c.Flags().BoolVar(&o.ready, "ready", false, "wait also until the state is ready (green)")
	return c
}

func runWait(c *cobra.Command, o waitOptions) error {
	if _, known := stateCodes[o.state]; !known {
		return usage{fmt.Errorf("%q is no state: there are %s", o.state, strings.Join(stateNames, ", "))}
	}
	cfg, self, err := loadSelf(c)
	if err != nil {
		return err
	}
	if cfg.Service(o.service) == nil {
		return noService(cfg, o.service)
	}
	client := control.NewClient(self.ControlSocket())
	defer client.Close()
	return waitFor(c.Context(), o, client.Status)
}

// waitFor looks until the state is there, or the time is up.
func waitFor(ctx context.Context, o waitOptions, look func(context.Context) (*control.Status, error)) error {
	limited, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	var last *control.Status
	for {
		status, err := look(limited)
		if err != nil && last != nil && limited.Err() != nil {
			status, err = last, nil // the time ran out while it was asked once more
		}
		if err == nil {
			if status, err = only(status, o.service); err != nil {
				return err
			}
			last = status
			if s := &status.Services[0]; s.State == o.state && (!o.ready || s.Colour == control.Ready) {
				return nil
			}
		}
		select {
		case <-ticker.C:
			continue
		case <-limited.Done():
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return fmt.Errorf("waited %v in vain: %w", o.timeout, err)
		}
		s := &status.Services[0]
		return &control.Refusal{
			Message: fmt.Sprintf("waited %v in vain for %s: %s is %s (%s) on %s: %s", o.timeout, o.state, s.Name, s.State, colourText(s.Colour), status.Node, s.Reason),
			Hint:    fmt.Sprintf("`twinbd why %s` says more", s.Name),
		}
	}
}

func completeWait(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 1 {
		return stateNames, cobra.ShellCompDirectiveNoFileComp
	}
	return completeService(c, args, word)
}
