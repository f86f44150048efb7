// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/internal/config"
	"github.com/twinbd/twinbd/nbd"
)

// member is one of the two, as its operator sees it: a process, a control socket,
// an export, a disk.
type member struct {
	pair    *pair
	name    string
	volume  *config.Volume
	client  *control.Client
	process *process // nil until it is started
}

func newMember(p *pair, name string) *member {
	return &member{
		pair: p, name: name, volume: p.cfg.Volume(volumeName),
		client: control.NewClient(p.cfg.Node(name).ControlSocket()),
	}
}

func (n *member) disk() string { return n.volume.Disk[n.name] }
func (n *member) uri() string  { return n.volume.Export[n.name].URI(volumeName) }

// argv is the command line of a command on this node.
func (n *member) argv(args ...string) []string {
	return append([]string{n.pair.binary, "--config", n.pair.config, "--node", n.name}, args...)
}

func (n *member) commandLine(args ...string) string { return strings.Join(n.argv(args...), " ") }

// start runs the node and returns when it answers.
func (n *member) start(ctx context.Context) error {
	n.client.Close() // a connection to the process before is of no use
	var err error
	n.process, err = spawn(n.name, filepath.Join(n.pair.dir, n.name+".log"), n.pair.outlive, n.argv("serve"))
	if err != nil {
		return err
	}
	return n.process.until(ctx, func(ctx context.Context) error {
		_, err := n.status(ctx)
		return err
	})
}

func (n *member) status(ctx context.Context) (*control.ServiceStatus, error) {
	st, err := n.client.Status(ctx)
	if err != nil {
		return nil, err
	}
	if s := st.Service(serviceName); s != nil {
		return s, nil
	}
	return nil, fmt.Errorf("%s does not know service %s", n.name, serviceName)
}

// act does what a command of that name does on the node.
func (n *member) act(ctx context.Context, verb string) error {
	if err := n.client.Act(ctx, control.Action{Verb: verb, Service: serviceName}, nil); err != nil {
		return fmt.Errorf("%s on %s: %w", verb, n.name, err)
	}
	return nil
}

// dial connects to the node's export.
func (n *member) dial(ctx context.Context) (*nbd.Client, error) {
	client, err := nbd.Dial(ctx, n.uri(), nil)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", n.name, err)
	}
	return client, nil
}

// await waits until the status is as wanted, and returns it.
func (n *member) await(ctx context.Context, what string, wanted func(*control.ServiceStatus) bool) (*control.ServiceStatus, error) {
	var st *control.ServiceStatus
	err := n.process.until(ctx, func(ctx context.Context) (err error) {
		if st, err = n.status(ctx); err == nil && !wanted(st) {
			err = fmt.Errorf("it is %s and not %s: %s", st.State, what, st.Reason)
		}
		return err
	})
	return st, err
}

// awaitPair waits until the secondary follows and the record says so: both know
// the same epoch, one above the given one. It returns the primary's status.
func (p *pair) awaitPair(ctx context.Context, above uint64) (*control.ServiceStatus, error) {
	var serves *control.ServiceStatus
	err := p.secondary.process.until(ctx, func(ctx context.Context) error {
		follows, err := p.secondary.status(ctx)
		if err == nil {
			serves, err = p.primary.status(ctx)
		}
		switch {
		case err != nil:
			return err
		case serves.State != control.Primary || serves.Colour != control.Ready || serves.Epoch <= above:
			return fmt.Errorf("%s is %s in epoch %d: %s", p.primary.name, serves.State, serves.Epoch, serves.Reason)
		case follows.State != control.Secondary || follows.Colour != control.Ready || follows.Epoch != serves.Epoch:
			return fmt.Errorf("%s is %s in epoch %d: %s", p.secondary.name, follows.State, follows.Epoch, follows.Reason)
		case serves.Volumes[0].Generation != follows.Volumes[0].Generation:
			return fmt.Errorf("both follow and name generations %s and %s", serves.Volumes[0].Generation, follows.Volumes[0].Generation)
		}
		return nil
	})
	return serves, err
}
