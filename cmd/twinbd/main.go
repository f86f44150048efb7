// SPDX-License-Identifier: Apache-2.0

// Command twinbd keeps one block device alive on two servers. Every command is
// a file of this directory: flags and words, nothing else.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() { os.Exit(run()) }

// run returns the exit code.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second interrupt ends at once what takes too long to end in good order.
	context.AfterFunc(ctx, stop)
	return execute(ctx, newRootCommand(), os.Args[1:])
}
