// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/twinbd/twinbd/control"
)

func newWhyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "why [SERVICE]",
		Short: "say why it is in this state, and what happens if something fails now",
		Long: `Say in one paragraph why a service, or each, is in its state on this node, and
what would happen if the peer, the link or the witness failed now.`,
		Example:           "  twinbd why\n  twinbd why postgres",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeService,
		RunE: func(c *cobra.Command, args []string) error {
			cfg, _, err := loadSelf(c)
			if err != nil {
				return err
			}
			if len(args) == 0 {
				for _, s := range cfg.Services {
					args = append(args, s.Name)
				}
			}
			for i, name := range args {
				if i > 0 {
					fmt.Fprintln(c.OutOrStdout())
				}
				if err := onService(c, control.Action{Verb: "why", Service: name}, tell); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
