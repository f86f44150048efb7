// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/twinbd/twinbd/failover"
	"github.com/twinbd/twinbd/internal/config"
	"github.com/twinbd/twinbd/internal/trust"
)

// witnessOptions is what a witness is told by flags, and else by the
// configuration file.
type witnessOptions struct {
	listen   []string // "host:port"
	state    string
	tls      string
	insecure bool
	nodes    []string // whose keys may connect; none: every key in tls but the witness's and the administrators'
}

func newWitnessCommand() *cobra.Command {
	var o witnessOptions
	c := &cobra.Command{
		Use:   "witness",
		Short: "run a witness",
		Long: `Run a witness: on a third machine, it keeps who may serve each service.
One witness is enough for many clusters. It needs no configuration file when
the address and the keys are given.`,
		Example: `  twinbd witness
  twinbd witness --listen 10.0.0.3:7801 --state /var/lib/twinbd/witness --tls /etc/twinbd/tls`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.complete(c); err != nil {
				return err
			}
			return runWitness(c, o)
		},
	}
	f := c.Flags()
	f.StringSliceVar(&o.listen, "listen", nil, "`address` to listen at, as in 10.0.0.3:7801 (default witness.address)")
	f.StringVar(&o.state, "state", "/var/lib/twinbd/witness", "`directory` of the records")
	f.StringVar(&o.tls, "tls", "", "`directory` of the keys (default tls.dir)")
	f.BoolVar(&o.insecure, "insecure", false, "use no keys: anybody may ask in any node's name")
	c.MarkFlagsMutuallyExclusive("tls", "insecure")
	return c
}

// complete takes from the configuration file what the flags do not say.
func (o *witnessOptions) complete(c *cobra.Command) error {
	if len(o.listen) > 0 && (o.tls != "" || o.insecure) {
		return nil
	}
	file := config.DefaultFile
	if f := c.Flag("config"); f != nil && f.Value.String() != "" {
		file = f.Value.String()
	}
	cfg, err := config.Load(file)
	if err != nil {
		return err
	}
	if len(o.listen) == 0 {
		o.listen = cfg.Witness.Address
	}
	if len(o.listen) == 0 {
		return fmt.Errorf("%s names no witness; hint: set witness.address, or say --listen ADDRESS", file)
	}
	if o.tls == "" && !o.insecure {
		o.tls, o.insecure = cfg.TLS.Dir, cfg.TLS.Insecure
	}
	o.nodes = cfg.NodeNames()
	return nil
}

// runWitness answers until it is told to end.
func runWitness(c *cobra.Command, o witnessOptions) error {
	ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	server := &failover.Server{Log: slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil))}
	var err error
	if server.Accept, err = o.accept(); err != nil {
		return err
	}
	dir, err := failover.OpenDirectory(o.state)
	if err != nil {
		return err
	}
	defer dir.Close()
	server.Register, err = failover.OpenRegister(dir, failover.RegisterConfig{Log: server.Log})
	if err != nil {
		return err
	}
	defer server.Register.Close()
	listeners, err := listenAll(ctx, o.listen)
	if err != nil {
		return err
	}
	keys := "keys in " + o.tls
	if o.insecure {
		keys = "no keys"
	}
	fmt.Fprintf(c.OutOrStdout(), "witness ready at %s, records of %d services in %s, %s\n",
		addresses(listeners), server.Register.Len(), o.state, keys)
	supervisor(daemon.SdNotifyReady)
	go reassure(ctx, func(time.Duration) bool { return true }) // that it runs is all there is
	return serveAll(ctx, server, listeners)
}

// accept returns how connections prove whose they are; nil without keys.
func (o *witnessOptions) accept() (func(context.Context, net.Conn) (net.Conn, string, error), error) {
	if o.insecure {
		return nil, nil
	}
	keys, err := trust.Load(o.tls, config.WitnessName)
	if err != nil {
		return nil, err
	}
	nodes := o.nodes
	if len(nodes) == 0 {
		nodes = nodesWithKeys(o.tls)
	}
	if len(nodes) == 0 {
		return nil, fmt.Errorf("%s has no node's certificate; hint: copy the directory made by `twinbd init`", o.tls)
	}
	if err := keys.Check(nodes...); err != nil {
		return nil, err
	}
	return func(ctx context.Context, conn net.Conn) (net.Conn, string, error) {
		return keys.Accept(ctx, conn, nodes...)
	}, nil
}

// nodesWithKeys is for a witness without a configuration file: all certificates
// but those that are no node's.
func nodesWithKeys(dir string) []string {
	files, _ := filepath.Glob(filepath.Join(dir, "*.crt"))
	for i, file := range files {
		files[i] = strings.TrimSuffix(filepath.Base(file), ".crt")
	}
	return slices.DeleteFunc(files, func(name string) bool {
		return name == config.WitnessName || name == config.AdminName
	})
}

func listenAll(ctx context.Context, at []string) ([]net.Listener, error) {
	var listeners []net.Listener
	for _, address := range at {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		if err != nil {
			for _, l := range listeners {
				l.Close()
			}
			return nil, fmt.Errorf("listen for nodes: %w; hint: the address must be one of this machine's, with a port that is free; say --listen ADDRESS", err)
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

func addresses(listeners []net.Listener) string {
	var all []string
	for _, l := range listeners {
		all = append(all, l.Addr().String())
	}
	return strings.Join(all, " and ")
}

// serveAll ends when ctx does, or when one listener fails.
func serveAll(ctx context.Context, server *failover.Server, listeners []net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() {
			errs <- server.Serve(ctx, l)
			cancel()
		}()
	}
	var all []error
	for range listeners {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}
