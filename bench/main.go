// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	opts, err := parseOptions(os.Args[1:], os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err = run(ctx, opts)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures, prints and judges. The disks are in a directory of their own
// under opts.dir; sockets and logs are in another, whose name is short enough
// for a Unix socket. Both are removed, the logs only after a good run.
func run(ctx context.Context, opts *options) (err error) {
	disks, err := os.MkdirTemp(opts.dir, "twinbd-bench-")
	if err != nil {
		return fmt.Errorf("make directory for disks: %w", err)
	}
	defer os.RemoveAll(disks)
	work, err := os.MkdirTemp("", "twinbd-bench-")
	if err != nil {
		return fmt.Errorf("make directory for sockets and logs: %w", err)
	}
	defer func() {
		if err == nil {
			os.RemoveAll(work)
		} else {
			fmt.Fprintln(os.Stderr, "bench: logs are kept in", work)
		}
	}()

	results, err := measureAll(ctx, opts, disks, work)
	if err != nil {
		return err
	}
	sum := summarise(results)
	printTable(os.Stdout, opts, sum)
	verdicts := judge(opts, sum)
	printVerdicts(os.Stdout, verdicts)
	if opts.json != "" {
		if err := writeReport(filepath.Clean(opts.json), opts, results, verdicts); err != nil {
			return err
		}
	}
	if opts.check {
		return failed(verdicts)
	}
	return nil
}
