// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/twinbd/twinbd/control"
)

func newSwitchCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "switch SERVICE",
		Short: "exchange primary and secondary by plan",
		Long: `Let the other node serve. It can be asked on either node. The one that serves stops
the application, flushes both disks and hands over; nothing is lost, and nothing
is done when the other is not up to date. It says how long clients waited.`,
		Example:           "  twinbd switch postgres",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeService,
		RunE: func(c *cobra.Command, args []string) error {
			return onService(c, control.Action{Verb: "switch", Service: args[0]}, tell)
		},
	}
}
