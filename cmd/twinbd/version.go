// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/twinbd/twinbd/mirror"
)

// buildInfo says what this program was made from.
type buildInfo struct {
	Version  string `json:"version"`            // of the module, or (devel)
	Revision string `json:"revision,omitempty"` // commit
	Time     string `json:"time,omitempty"`     // of the commit
	Modified bool   `json:"modified"`           // the tree differed from the commit
	Protocol int    `json:"protocol"`           // of the nodes; the one before is spoken too
	Go       string `json:"go"`
	System   string `json:"system"`
}

func newVersionCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "version",
		Short: "print what this program was made from",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			build := readBuild()
			if asJSON {
				return printJSON(c.OutOrStdout(), build)
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "twinbd %s\n", build)
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func readBuild() buildInfo {
	b := buildInfo{Version: "(devel)", Protocol: mirror.ProtocolVersion, Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

// String writes all but the time on one line.
func (b buildInfo) String() string {
	text := b.Version
	if b.Revision != "" {
		text += " " + b.Revision[:min(12, len(b.Revision))]
	}
	if b.Modified {
		text += " modified"
	}
	return fmt.Sprintf("%s protocol %d %s %s", text, b.Protocol, b.Go, b.System)
}
