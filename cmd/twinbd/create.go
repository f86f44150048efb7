// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/internal/config"
	"github.com/twinbd/twinbd/internal/node"
)

func newCreateCommand() *cobra.Command {
	var o node.CreateOptions
	c := &cobra.Command{
		Use:   "create [VOLUME]",
		Short: "make this node's disk and metadata",
		Long: `Make this node's disk of a volume, or of all volumes, and its metadata. A file is
made and its space reserved; a disk that exists is taken when it is empty. A disk
with a foreign signature is refused, and so is one that has metadata already.`,
		Example: `  twinbd create
  twinbd create pgdata --blank`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeVolume,
		RunE:              func(c *cobra.Command, args []string) error { return runCreate(c, args, o) },
	}
	f := c.Flags()
	f.BoolVar(&o.Blank, "blank", false, "no first resync: prove that the disk reads as zeroes (a new file does)")
	f.BoolVar(&o.Keep, "keep", false, "adopt a disk with its data")
	f.BoolVar(&o.Anew, "anew", false, "replace metadata that is there; the disk is then copied from the peer")
	c.MarkFlagsMutuallyExclusive("blank", "keep")
	c.MarkFlagsMutuallyExclusive("keep", "anew")
	return c
}

func runCreate(c *cobra.Command, args []string, o node.CreateOptions) error {
	cfg, self, err := loadSelf(c)
	if err != nil {
		return err
	}
	volumes, err := chosenVolumes(cfg, args)
	if err != nil {
		return err
	}
	for _, v := range volumes {
		p := newProgress(c.ErrOrStderr())
		err := node.Create(c.Context(), cfg, v, self.Name, o, func(done, total int64) {
			p.update(control.Progress{Text: "read " + v.Disk[self.Name], Done: done, Total: total})
		})
		p.end()
		if err != nil {
			return err
		}
		fmt.Fprintf(c.OutOrStdout(), "volume %s: %s is ready\n", v.Name, v.Disk[self.Name])
	}
	return nil
}

// chosenVolumes are the one that is named, or all.
func chosenVolumes(cfg *config.Config, args []string) ([]*config.Volume, error) {
	if len(args) == 1 {
		v := cfg.Volume(args[0])
		if v == nil {
			return nil, fmt.Errorf("volume %q is not in the configuration; hint: %s", args[0], volumeNames(cfg))
		}
		return []*config.Volume{v}, nil
	}
	var all []*config.Volume
	for i := range cfg.Services {
		for j := range cfg.Services[i].Volumes {
			all = append(all, &cfg.Services[i].Volumes[j])
		}
	}
	if len(all) == 0 {
		return nil, errors.New("the configuration has no volume")
	}
	return all, nil
}

func volumeNames(cfg *config.Config) string {
	text := "it has"
	for _, s := range cfg.Services {
		for _, v := range s.Volumes {
			text += " " + v.Name
		}
	}
	return text
}

// completeVolume offers the volumes of the configuration for a first argument.
func completeVolume(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	if cfg, err := loadConfig(c); err == nil && len(args) == 0 {
		for _, s := range cfg.Services {
			for _, v := range s.Volumes {
				names = append(names, v.Name)
			}
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
