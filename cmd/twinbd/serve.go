// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/twinbd/twinbd/internal/node"
)

func newServeCommand() *cobra.Command {
	var logLevel string
	c := &cobra.Command{
		Use:   "serve",
		Short: "run this node",
		Long: `Run this node: open its disks, connect to the peer, and serve NBD clients where
the record says so. It ends in good order at SIGINT and SIGTERM. At SIGHUP, and when
systemd restarts it, it is replaced by the program and the configuration that are in
place then: what is mounted from its device and the application go on.`,
		Example: "  twinbd serve\n  twinbd serve --node beta --log debug",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runServe(c, logLevel) },
	}
	c.Flags().StringVar(&logLevel, "log", "info", "least `level` that is logged: debug, info, warn or error")
	return c
}

func runServe(c *cobra.Command, logLevel string) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(logLevel)); err != nil {
		return usage{fmt.Errorf("--log %q is not debug, info, warn or error", logLevel)}
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(c.Context())) // see obey
	defer stop()
	cfg, self, err := loadSelf(c)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
	if node.NeedsProtection(cfg) {
		for _, problem := range node.Protect() {
			log.Warn("not protected against running out of memory", "error", problem)
		}
	}
	left, stopSoon, err := legacy()
	if err != nil {
		return err
	}
	n, err := node.Open(cfg, self.Name, node.Options{Log: log, Version: readBuild().Version, Legacy: left})
	if err != nil {
		return err
	}
	go obey(c, n, stop, log)
	fmt.Fprintf(c.OutOrStdout(), "node %s ready, control socket %s\n", self.Name, self.ControlSocket())
	supervisor(daemon.SdNotifyReady)
	defer context.AfterFunc(ctx, func() { supervisor(daemon.SdNotifyStopping) })()
	go reassure(context.WithoutCancel(ctx), n.Alive) // a stop in good order may take its time
	if stopSoon {
		go stopLater(ctx, n, stop)
	}
	err = n.Run(ctx)
	if n.HandedOn() {
		select {} // this process is about to be replaced, or to end: see obey
	}
	return err
}
