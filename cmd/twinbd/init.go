// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/internal/trust"
)

func newInitCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "init",
		Short: "make the cluster's keys for nodes, witness and administrators",
		Long: `Make the keys by which the nodes, the witness and the administrators know each
other, in the directory that tls.dir names. Keys that exist are never
overwritten. Run it once, on one machine, then copy the directory to the others.`,
		Example: `  twinbd init
  scp -rp /etc/twinbd/tls beta:/etc/twinbd/`,
		Args: cobra.NoArgs,
		RunE: runInit,
	}
}

func runInit(c *cobra.Command, _ []string) error {
	cfg, err := loadConfig(c)
	if err != nil {
		return err
	}
	if cfg.TLS.Insecure {
		return &control.Refusal{
			Message: "the configuration says tls.insecure = true, so no keys are used",
			Hint:    `set tls.dir = "/etc/twinbd/tls" in its place`,
		}
	}
	names := cfg.KeyNames()
	if err := trust.Init(cfg.TLS.Dir, names); err != nil {
		return err
	}
	fmt.Fprintf(c.OutOrStdout(), "made keys of %s in %s\n", strings.Join(names, ", "), cfg.TLS.Dir)
	fmt.Fprintln(c.OutOrStdout(), "next: copy the directory to the other machines; each needs all .crt files and its own .key")
	return nil
}
