// SPDX-License-Identifier: Apache-2.0

package application

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"
)

// The defaults of RunnerConfig.
const (
	DefaultGrace = 5 * time.Second

	// hopeless is how long after SIGKILL a process may take to be gone.
	hopeless = 5 * time.Second
)

// RunnerConfig says for whom commands are run.
type RunnerConfig struct {
	Service string // TWINBD_SERVICE
	Node    string // TWINBD_NODE

	// Instance tells the commands of this node from those of any other on the
	// same machine, and stays the same when the daemon is restarted: the path
	// of the node's state directory.
	Instance string

	// Cgroup is a directory of a cgroup v2 hierarchy, for this service alone;
	// it is made if it is not there, its parent must be. "": none, and with a
	// line in the log where it cannot be used: commands are then found by
	// session and environment, which catches less (see the package comment).
	// A unit of systemd that is to hold it has Delegate=yes, and
	// KillMode=process for an application that outlives the daemon.
	Cgroup string

	// Grace is the time between SIGTERM and SIGKILL; 0: DefaultGrace.
	Grace time.Duration

	Logger *slog.Logger
}

// Runner runs the commands of one service on one node. Its methods may be
// called by several goroutines.
//
// A command runs through /bin/sh -c in a session of its own, in the directory
// /, with /dev/null as its input and without open files of the daemon. It finds
// TWINBD_SERVICE, TWINBD_NODE, TWINBD_EPOCH, TWINBD_ACTION and TWINBD_REASON in
// its environment. A program that stays should not print to the output that it
// inherited: a pipe that ends with the daemon.
type Runner struct {
	config RunnerConfig
	crowd  crowd // how all processes of the service are known
}

// NewRunner also ends commands that an earlier daemon has left running, though
// not what those had started to stay.
func NewRunner(ctx context.Context, config RunnerConfig) (*Runner, error) {
	switch {
	case config.Service == "" || config.Node == "":
		return nil, errors.New("run commands: service and node have no names")
	case config.Instance == "" || strings.ContainsRune(config.Service+config.Instance, 0):
		return nil, errors.New("run commands: the instance has no name")
	}
	if config.Grace <= 0 {
		config.Grace = DefaultGrace
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Runner{config: config}
	if err := r.open(ctx); err != nil {
		return nil, fmt.Errorf("run commands: %w", err)
	}
	return r, nil
}

// Fence runs the command that turns the peer off. nil means that the peer is
// certainly off: the command said so, in time. It finds TWINBD_PEER in its
// environment.
func (r *Runner) Fence(ctx context.Context, order Order, line, peer string, limit time.Duration) error {
	return r.Run(ctx, order, Command{Name: "fence command", Action: ActionFence, Line: line, Limit: limit, Peer: peer})
}

// daemonOnly are variables of the daemon's own dealings with systemd: a child that
// has them would speak in its name.
var daemonOnly = []string{
	"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "MAINPID", "JOURNAL_STREAM", "INVOCATION_ID",
	"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID", "FDSTORE",
}

// runVariable holds what tells the processes of one run from all others.
const runVariable = "TWINBD_RUN"

func (r *Runner) environment(order Order, c Command, run string) []string {
	env := slices.DeleteFunc(os.Environ(), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return slices.Contains(daemonOnly, name) || strings.HasPrefix(name, "TWINBD_")
	})
	env = append(env,
		"TWINBD_SERVICE="+r.config.Service,
		"TWINBD_NODE="+r.config.Node,
		fmt.Sprintf("TWINBD_EPOCH=%d", order.Epoch),
		"TWINBD_ACTION="+string(c.Action),
		"TWINBD_REASON="+printable(order.Reason),
		runVariable+"="+run,
	)
	if c.Peer != "" {
		env = append(env, "TWINBD_PEER="+c.Peer)
	}
	return env
}
