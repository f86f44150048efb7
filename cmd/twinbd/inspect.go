// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/internal/node"
)

func newInspectCommand() *cobra.Command {
	var file, into string
	c := &cobra.Command{
		Use:   "inspect [VOLUME]",
		Short: "print the metadata for a human",
		Long: `Print what a volume's metadata on this node says: state, generations, dirty
blocks and intents. It only reads, also while the node runs.

With --file it prints and checks what ` + "`twinbd resolve`" + ` has saved. With --into the
saved blocks are also written to where they were, into an image that is there: a
copy of the volume, or an empty file of its size (truncate -s).`,
		Example: `  twinbd inspect pgdata
  twinbd inspect --file /var/lib/twinbd/split-pgdata-20300102T030405.000Z.twinbd
  twinbd inspect --file split.twinbd --into copy.img`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeVolume,
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case file != "" && len(args) > 0:
				return usage{errors.New("--file and a VOLUME are two things")}
			case file != "":
				return inspectFile(c, file, into)
			case into != "":
				return usage{errors.New("--into needs --file")}
			}
			return inspectVolumes(c, args)
		},
	}
	c.Flags().StringVar(&file, "file", "", "`file` that a resolve has saved")
	c.Flags().StringVar(&into, "into", "", "with --file: write the blocks into this `image`")
	return c
}

func inspectVolumes(c *cobra.Command, args []string) error {
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
}

func inspectFile(c *cobra.Command, file, into string) error {
	if err := node.InspectSplit(c.OutOrStdout(), file); err != nil || into == "" {
		return err
	}
	if err := node.ExtractSplit(file, into); err != nil {
		return fmt.Errorf("write the saved blocks: %w", err)
	}
	_, err := fmt.Fprintf(c.OutOrStdout(), "written into %s\n", into)
	return err
}
