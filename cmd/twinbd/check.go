// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/twinbd/twinbd/internal/config"
)

func newCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check [FILE]",
		Short: "check a configuration",
		Long: `Check a configuration and say everything that is wrong with it, each problem
with file, line, key and what would be right. Nothing but the file is looked at:
it can be checked on any machine.`,
		Example: `  twinbd check
  twinbd check ./new.toml`,
		Args: cobra.MaximumNArgs(1),
		RunE: runCheck,
	}
}

func runCheck(c *cobra.Command, args []string) error {
	file := c.Flag("config").Value.String()
	if len(args) == 1 {
		file = args[0]
	}
	cfg, err := config.Load(file)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "ok: %s\n", summary(cfg))
	return err
}

// summary says what a configuration is about, so that a wrong file is seen.
func summary(cfg *config.Config) string {
	volumes := 0
	for _, s := range cfg.Services {
		volumes += len(s.Volumes)
	}
	decider := "no witness"
	switch {
	case len(cfg.Witness.Address) > 0:
		decider = "witness " + cfg.Witness.Address[0]
	case len(cfg.Witness.Ping) > 0:
		decider = fmt.Sprintf("ping %s", cfg.Witness.Ping[0])
	}
	trust := "keys in " + cfg.TLS.Dir
	if cfg.TLS.Insecure {
		trust = "insecure"
	}
	return fmt.Sprintf("cluster %s, nodes %s, %s, %s, %s, %s", cfg.Cluster, strings.Join(cfg.NodeNames(), " and "),
		decider, trust, count(len(cfg.Services), "service"), count(volumes, "volume"))
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
