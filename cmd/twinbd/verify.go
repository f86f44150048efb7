// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newVerifyCommand() *cobra.Command {
	var repair bool
	c := &cobra.Command{
		Use:   "verify VOLUME",
		Short: "compare the two disks while the application runs",
		Long: `Compare the two disks of a volume, or of all volumes of a service, by checksum,
on the node that serves. Exit code 1 when blocks differ.`,
		Example:           "  twinbd verify pgdata\n  twinbd verify pgdata --repair",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeVolume,
		RunE: func(c *cobra.Command, args []string) error {
			return runOnVolume(c, args[0], "verify", "repair", repair, "no block differs")
		},
	}
	c.Flags().BoolVar(&repair, "repair", false, "copy the blocks that differ from this node to the other")
	return c
}

func newResyncCommand() *cobra.Command {
	var full bool
	c := &cobra.Command{
		Use:   "resync VOLUME",
		Short: "copy marked blocks to the other node",
		Long: `Copy the blocks that are marked as different, such as a verify has found, from
this node, which serves, to the other; with --full every block. A node that
returns is resynced by itself: this command is for what a human found.`,
		Example:           "  twinbd resync pgdata\n  twinbd resync pgdata --full",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeVolume,
		RunE: func(c *cobra.Command, args []string) error {
			return runOnVolume(c, args[0], "resync", "full", full, "the disks are alike")
		},
	}
	c.Flags().BoolVar(&full, "full", false, "copy every block")
	return c
}

// runOnVolume asks the node to do something with a volume, or with all of a
// service, and says how it ended.
func runOnVolume(c *cobra.Command, name, verb, flag string, set bool, done string) error {
	cfg, self, err := loadSelf(c)
	if err != nil {
		return err
	}
	a, err := serviceOrVolume(cfg, name)
	if err != nil {
		return err
	}
	a.Verb = verb
	if set {
		a.Args = map[string]string{flag: "true"}
	}
	if err := act(c, self, a); err != nil {
		return err
	}
	fmt.Fprintf(c.OutOrStdout(), "%s %s: %s\n", verb, name, done)
	return nil
}
