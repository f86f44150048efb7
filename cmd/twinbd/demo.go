// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/twinbd/twinbd/internal/demo"
)

func newDemoCommand() *cobra.Command {
	var o demo.Options
	c := &cobra.Command{
		Use:   "demo",
		Short: "a pair and a witness on this machine, through a whole story",
		Long: `Start two nodes and a witness on this machine, copy a disk image in, and kill
the nodes in turn under write load: who takes over by itself, how long writers
wait and for what, what is lost (nothing), how little is copied back. Every
number is measured, every disk compared; a mismatch ends with exit code 1. It
kills processes, not machines: a power cut is not shown. It needs no root and no
other program, uses loopback and Unix sockets only, and takes half a minute. At
the end nothing is left.`,
		Example: `  twinbd demo
  twinbd demo --image disk.img
  twinbd demo --keep --dir /var/tmp`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if o.Binary, err = os.Executable(); err != nil {
				return fmt.Errorf("find this program's file: %w", err)
			}
			o.Out = c.OutOrStdout()
			return demo.Run(c.Context(), o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.Dir, "dir", "", "`directory` to work in; a new one is made below it (default that for temporary files)")
	f.StringVar(&o.Image, "image", "", "`file` or block device to copy in (default a file system that is built)")
	f.BoolVar(&o.Keep, "keep", false, "leave the pair running")
	sizeVar(f, &o.Size, "size", 0, "size of the volume, for example 1GiB (default 512MiB, or more when the image needs it)")
	return c
}
