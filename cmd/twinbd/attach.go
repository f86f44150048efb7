// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"
)

func newAttachCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "attach VOLUME",
		Short: "attach a volume's kernel device, by hand",
		Long: "Attach the device of a volume, or of all volumes of a service, on this node, which\n" +
			"serves: to make a file system, or to repair one. The service does this by itself\n" +
			"when it starts here, where `device` is configured.",
		Example:           "  twinbd attach pgdata && mkfs.ext4 /dev/nbd0 && twinbd detach pgdata",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeVolume,
		RunE:              func(c *cobra.Command, args []string) error { return runOnDevice(c, args[0], "attach") },
	}
}

func newDetachCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "detach VOLUME",
		Short: "detach a volume's kernel device, by hand",
		Long: `Write what the kernel's cache holds of the device of a volume, or of all volumes
of a service, and detach it. One that is mounted or open is refused.`,
		Example:           "  twinbd detach pgdata",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeVolume,
		RunE:              func(c *cobra.Command, args []string) error { return runOnDevice(c, args[0], "detach") },
	}
}

func runOnDevice(c *cobra.Command, name, verb string) error {
	cfg, self, err := loadSelf(c)
	if err != nil {
		return err
	}
	a, err := serviceOrVolume(cfg, name)
	if err != nil {
		return err
	}
	a.Verb = verb
	return tell(c, self, a)
}
