// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package main

import (
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/twinbd/twinbd/internal/node"
)

// There is no systemd.

func leaveToNext(*cobra.Command, *node.Node, *slog.Logger) {}
func kept() (*node.Legacy, error)                          { return nil, nil }
