// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/internal/config"
)

func newPrimCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "prim SERVICE",
		Short: `make this node the primary: "I choose this node's data"`,
		Long: `Make this node serve a service, with the data that it has. The first prim of a
new service says which node's data counts. It is refused where it would lose
acknowledged writes.`,
		Example:           "  twinbd prim postgres",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeService,
		RunE: func(c *cobra.Command, args []string) error {
			cfg, self, err := loadSelf(c)
			if err != nil {
				return err
			}
			if cfg.Service(args[0]) == nil {
				return noService(cfg, args[0])
			}
			return act(c, self, control.Action{Verb: "prim", Service: args[0]})
		},
	}
}

func newPrimforceCommand() *cobra.Command {
	var volume string
	c := &cobra.Command{
		Use:   "primforce SERVICE",
		Short: "make this node the primary although acknowledged writes are lost",
		Long: `Make this node serve a service although the other node may have acknowledged
writes that this one lacks, or this one's disk was being copied to. It says what
will be lost, and asks for the volume's name.`,
		Example:           "  twinbd primforce postgres --volume pgdata",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeService,
		RunE: func(c *cobra.Command, args []string) error {
			cfg, self, err := loadSelf(c)
			if err != nil {
				return err
			}
			s := cfg.Service(args[0])
			if s == nil {
				return noService(cfg, args[0])
			}
			question := fmt.Sprintf("Every write that %s acknowledged and this node does not have will be lost, in volume %s.",
				cfg.Peer(self.Name).Name, strings.Join(namesOf(s), ", "))
			if err := confirm(c, question, s.Volumes[0].Name, "volume", volume); err != nil {
				return err
			}
			return act(c, self, control.Action{Verb: "primforce", Service: args[0]})
		},
	}
	c.Flags().StringVar(&volume, "volume", "", "`name` of the (first) volume, to confirm without a terminal")
	return c
}

func namesOf(s *config.Service) []string {
	var names []string
	for _, v := range s.Volumes {
		names = append(names, v.Name)
	}
	return names
}

func noService(cfg *config.Config, name string) error {
	var names []string
	for _, s := range cfg.Services {
		names = append(names, s.Name)
	}
	return fmt.Errorf("service %q is not in the configuration; hint: it has %s", name, strings.Join(names, " "))
}
