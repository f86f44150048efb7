// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/twinbd/twinbd/internal/node"
)

func newDoctorCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "say what on this machine would keep the node from working, and the remedy",
		Long: `Look at all that this node needs: configuration, keys, addresses, peer, witness or
router, virtual addresses, rights, commands, directories, disks, kernel. It changes
nothing, and can be run by anybody, also while the node runs; what it could not
look at it says. Exit code 1 when something fails.`,
		Example: "  twinbd doctor\n  twinbd doctor --node beta --json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := loadConfig(c)
			found := node.Doctor(c.Context(), cfg, err, c.Flag("node").Value.String())
			if asJSON {
				err = printJSON(c.OutOrStdout(), found)
			} else {
				err = printFindings(c.OutOrStdout(), found)
			}
			if err == nil && slices.ContainsFunc(found, node.Finding.Bad) {
				return exitCode(exitRefused)
			}
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// printFindings writes a line for each, the remedy below it, and a sum.
func printFindings(w io.Writer, found []node.Finding) error {
	var text bytes.Buffer
	sum := make(map[node.Level]int)
	for _, f := range found {
		sum[f.Level]++
		fmt.Fprintf(&text, "%-4s  %-13s  %s\n", f.Level, f.Check, oneLine(f.Message))
		if f.Hint != "" {
			fmt.Fprintf(&text, "%-4s  %-13s  hint: %s\n", "", "", oneLine(f.Hint))
		}
	}
	fmt.Fprintf(&text, "%d ok, %d not looked at, %d to know, %d to mend\n",
		sum[node.LevelOK], sum[node.LevelSkip], sum[node.LevelWarn], sum[node.LevelFail])
	if _, err := text.WriteTo(w); err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return nil
}
