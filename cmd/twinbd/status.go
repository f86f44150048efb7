// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinbd/twinbd/control"
)

// stateCodes are the exit codes of `status --exit-code`.
var stateCodes = map[control.State]exitCode{
	control.Stop: 10, control.Wait: 11, control.Alone: 12, control.Primary: 13, control.Secondary: 14,
}

type statusOptions struct {
	service  string // empty: all
	json     bool
	watch    bool
	every    time.Duration
	exitCode bool
}

func newStatusCommand() *cobra.Command {
	var o statusOptions
	c := &cobra.Command{
		Use:   "status [SERVICE]",
		Short: "show what this node is for its services",
		Long: `Show what this node is for its services, and why.

With --exit-code, for one service, the state is the exit code:
10 STOP, 11 WAIT, 12 ALONE, 13 PRIM, 14 SECOND. Otherwise it is 0 when the node
could answer.`,
		Example: `  twinbd status
  twinbd status postgres --watch
  twinbd status postgres --exit-code || test $? -eq 13`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeService,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				o.service = args[0]
			}
			return runStatus(c, o)
		},
	}
	flags := c.Flags()
	flags.BoolVar(&o.json, "json", false, "print JSON")
	flags.BoolVarP(&o.watch, "watch", "w", false, "show it again and again, until interrupted")
	durationVar(flags, &o.every, "every", time.Second, "with --watch: `time` between two looks")
	flags.BoolVar(&o.exitCode, "exit-code", false, "end with the state of the service as exit code")
	c.MarkFlagsMutuallyExclusive("watch", "exit-code")
	return c
}

func runStatus(c *cobra.Command, o statusOptions) error {
	if o.every <= 0 {
		return usage{errors.New("--every must be longer than 0ms")}
	}
	cfg, node, err := loadSelf(c)
	if err != nil {
		return err
	}
	if o.exitCode && o.service == "" {
		if len(cfg.Services) > 1 {
			return usage{errors.New("--exit-code needs one SERVICE, and there are several")}
		}
		o.service = cfg.Services[0].Name
	}
	client := control.NewClient(node.ControlSocket())
	defer client.Close()
	look := func(ctx context.Context) (*control.Status, error) {
		status, err := client.Status(ctx)
		if err != nil {
			return nil, err
		}
		return only(status, o.service)
	}
	if o.watch {
		return watch(c.Context(), o, look, c.OutOrStdout())
	}
	status, err := look(c.Context())
	if err != nil {
		return err
	}
	if err := showStatus(c.OutOrStdout(), status, o.json); err != nil {
		return err
	}
	if o.exitCode {
		return codeOf(status.Services[0])
	}
	return nil
}

// only returns a status with no service but the one named, or with all.
func only(status *control.Status, service string) (*control.Status, error) {
	if service == "" {
		return status, nil
	}
	found := status.Service(service)
	if found == nil {
		names := make([]string, len(status.Services))
		for i := range status.Services {
			names[i] = status.Services[i].Name
		}
		return nil, &control.Refusal{
			Message: fmt.Sprintf("the node has no service %q", service),
			Hint:    "it has " + strings.Join(names, ", "),
		}
	}
	one := *status
	one.Services = []control.ServiceStatus{*found}
	return &one, nil
}

func codeOf(service control.ServiceStatus) error {
	code, ok := stateCodes[service.State]
	if !ok {
		return fmt.Errorf("the node says state %q, which this command does not know; hint: upgrade it", service.State)
	}
	return code
}

// watch shows the status until ctx ends. A node that does not answer is shown
// too, and asked again: that is what one watches for.
func watch(ctx context.Context, o statusOptions, look func(context.Context) (*control.Status, error), w io.Writer) error {
	file, ok := w.(*os.File)
	clear := ok && isTerminal(file) && !o.json
	ticker := time.NewTicker(o.every)
	defer ticker.Stop()
	for {
		status, err := look(ctx)
		if ctx.Err() != nil {
			return nil
		}
		// Drawn in memory first, so that a terminal does not flicker.
		var screen bytes.Buffer
		if clear {
			screen.WriteString("\x1b[H\x1b[2J")
		}
		switch {
		case err != nil && o.json:
			err = printJSON(&screen, map[string]string{"error": control.Refuse(err).Message})
		case err != nil:
			printError(&screen, err)
			err = nil
		default:
			err = showStatus(&screen, status, o.json)
		}
		if err != nil {
			return err
		}
		if _, err := screen.WriteTo(w); err != nil {
			return fmt.Errorf("write status: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}
