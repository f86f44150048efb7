// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/twinbd/twinbd/control"
)

func newMaintenanceCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "maintenance SERVICE on|off",
		Short: "no automatic failover and no checks, until it is off again",
		Long: `Turn maintenance of a service on or off, on both nodes. While it is on nothing is
taken over or switched by itself, and the application is not checked; data is
mirrored as ever. It survives restarts, and every status shows it.`,
		Example:           "  twinbd maintenance postgres on",
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: completeMaintenance,
		RunE: func(c *cobra.Command, args []string) error {
			on, known := map[string]string{"on": "true", "off": "false"}[args[1]]
			if !known {
				return usage{fmt.Errorf("%q is neither on nor off", args[1])}
			}
			a := control.Action{Verb: "maintenance", Service: args[0], Args: map[string]string{"on": on}}
			if err := onService(c, a, act); err != nil {
				return err
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "maintenance %s: %s\n", args[0], args[1])
			return err
		},
	}
}

func completeMaintenance(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 1 {
		return []string{"on", "off"}, cobra.ShellCompDirectiveNoFileComp
	}
	return completeService(c, args, word)
}
