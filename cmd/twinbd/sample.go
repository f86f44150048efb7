// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/twinbd/twinbd/internal/config"
)

func newSampleCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "sample",
		Short:   "print a commented configuration",
		Example: `  twinbd sample > /etc/twinbd/twinbd.toml`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := io.WriteString(c.OutOrStdout(), config.Sample())
			return err
		},
	}
}
