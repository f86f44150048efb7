// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/twinbd/twinbd/control"
)

func newStartCommand() *cobra.Command {
	return startOrStop(&cobra.Command{
		Use:   "start SERVICE",
		Short: "let a service run on this node, as primary or secondary",
		Long: `Let a service run on this node again after a stop. Which node serves is found
out by both: nothing is served that may lack acknowledged writes. A service that
was never stopped is started already.`,
		Example: "  twinbd start postgres\n  twinbd start postgres --all",
	}, "start it on both nodes")
}

func newStopCommand() *cobra.Command {
	return startOrStop(&cobra.Command{
		Use:   "stop SERVICE",
		Short: "stop a service on this node; the other serves on",
		Long: `Stop a service on this node, in order: the application ends, both disks are
flushed, and the other node serves on if it has everything. It stays stopped, also
over a restart, until ` + "`twinbd start`" + `.

With --all it is stopped on both nodes, first where it is served. Nobody serves
then, and the two disks are alike.`,
		Example: "  twinbd stop postgres\n  twinbd stop postgres --all",
	}, "stop it on both nodes: nobody serves it then")
}

// startOrStop makes a command that is for this node, or with --all for both.
func startOrStop(c *cobra.Command, usage string) *cobra.Command {
	var all bool
	c.Args = cobra.ExactArgs(1)
	c.ValidArgsFunction = completeService
	c.RunE = func(c *cobra.Command, args []string) error {
		a := control.Action{Verb: c.Name(), Service: args[0]}
		where := ""
		if all {
			a.Args = map[string]string{"all": "true"}
			where = " on both nodes"
		}
		if err := onService(c, a, act); err != nil {
			return err
		}
		_, err := fmt.Fprintf(c.OutOrStdout(), "%s %s%s: done\n", c.Name(), args[0], where)
		return err
	}
	c.Flags().BoolVar(&all, "all", false, usage)
	return c
}
