// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/internal/node"
)

func newInspectCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect [VOLUME]",
		Short: "print the metadata for a human",
		Long: `Print what a volume's metadata on this node says: state, generations, dirty
blocks and intents. It only reads, also while the node runs.`,
		Example:           "  twinbd inspect pgdata",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeVolume,
		RunE: func(c *cobra.Command, args []string) error {
			cfg, self, err := loadSelf(c)
			if err != nil {
				return err
			}
			volumes, err := chosenVolumes(cfg, args)
			if err != nil {
				return err
			}
			for _, v := range volumes {
				m, err := node.Inspect(cfg, v, self.Name)
				if err != nil {
					return err
				}
				if err := bitmap.Print(c.OutOrStdout(), m); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
