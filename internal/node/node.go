// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/failover"
	"github.com/twinbd/twinbd/internal/config"
	"github.com/twinbd/twinbd/internal/trust"
	"github.com/twinbd/twinbd/mirror"
)

// Node is one of the two servers.
type Node struct {
	cfg         *config.Config
	self, peer  *config.Node
	keys        *trust.Keys // nil in a lab without keys
	log         *slog.Logger
	version     string
	incarnation uint64               // of this process
	clock       func() time.Duration // runs during suspend
	wall        func() time.Time     // for people: decides nothing
	digest      string               // of the configuration
	devices     func() (deviceKernel, error)
	legacy      *Legacy // what the process before this one left; nil: this one replaces none

	dir      failover.Directory
	witness  failover.Witness // nil: none is configured
	client   *failover.Client
	peers    *peers
	services []*service
	volumes  map[string]*volume
	exports  []*export
	control  net.Listener
	events   *control.Events

	handedOn atomic.Bool   // everything is laid down, for a successor
	laidDown chan struct{} // closed when that has ended, however

	mu             sync.Mutex
	stopping       bool   // it is too late to hand on
	differs        string // how the peer's configuration differs
	clocks         string // how the peer's wall clock differs
	behind         int    // so many beats in a row came from a clock that is behind, or came late
	witnessProblem string // why the witness was not reached
	theirDigest    string // of the peer's configuration, as it said last
	comparing      bool   // the configurations are being compared
	comparisons    sync.WaitGroup
}

// Options are what a node needs besides its configuration.
type Options struct {
	Log     *slog.Logger
	Version string
	Wall    func() time.Time // the time of day, for people; nil: time.Now
	Legacy  *Legacy          // what the process before this one left, which this one replaces; nil: nothing

	devices func() (deviceKernel, error) // nil: the kernel's
}

// keptEvents is how many events a node keeps in memory.
const keptEvents = 1000

// Open opens everything that a node needs: locks, disks, sockets. Nothing is
// served before Run. On error nothing stays open.
func Open(cfg *config.Config, self string, o Options) (n *Node, err error) {
	n = &Node{
		cfg: cfg, self: cfg.Node(self), peer: cfg.Peer(self), log: o.Log, version: o.Version,
		volumes: make(map[string]*volume), events: control.NewEvents(keptEvents),
		clock: failover.NewClock(), wall: o.Wall, digest: cfg.Digest(), devices: o.devices, legacy: o.Legacy, laidDown: make(chan struct{}),
	}
	if n.devices == nil {
		n.devices = openKernel
	}
	if n.wall == nil {
		n.wall = time.Now
	}
	if n.self == nil {
		return nil, fmt.Errorf("node %q is not in the configuration", self)
	}
	var random [8]byte
	rand.Read(random[:]) // never fails, by its documentation
	n.incarnation = binary.BigEndian.Uint64(random[:])
	defer func() {
		if err != nil {
			n.close()
			n = nil
		}
	}()
	if !cfg.TLS.Insecure {
		if n.keys, err = trust.Load(cfg.TLS.Dir, self); err != nil {
			return n, err
		}
	}
	for _, dir := range []string{n.self.State, n.self.Run} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return n, fmt.Errorf("make directory: %w; hint: run as root, or set node.%s.state and run", err, self)
		}
	}
	if n.dir, err = failover.OpenDirectory(n.self.State); err != nil {
		return n, err
	}
	if err := n.openWitness(); err != nil {
		return n, err
	}
	if n.control, err = control.Listen(n.self.ControlSocket(), control.DefaultMode); err != nil {
		return n, err
	}
	if n.peers, err = listenPeers(n); err != nil {
		return n, err
	}
	if err := n.openServices(); err != nil {
		return n, err
	}
	n.succeed(n.legacy)
	return n, nil
}

func (n *Node) openServices() error {
	for i := range n.cfg.Services {
		s, err := newService(n, &n.cfg.Services[i])
		if err != nil {
			return err
		}
		n.services = append(n.services, s)
		for _, v := range s.volumes {
			n.volumes[v.cfg.Name] = v
		}
	}
	for _, v := range n.volumes {
		x, err := openExport(v)
		if err != nil {
			return err
		}
		n.exports = append(n.exports, x)
	}
	return nil
}

// close gives up what Open opened, when nothing has run.
func (n *Node) close() {
	for _, x := range n.exports {
		x.listener.Close()
	}
	for _, s := range n.services {
		s.close()
	}
	if n.peers != nil {
		n.peers.close()
	}
	if n.control != nil {
		n.control.Close()
	}
	if n.client != nil {
		n.client.Close()
	}
	if n.dir != nil {
		n.dir.Close()
	}
}

// Run serves until ctx ends, then stops in good order: clients are let go,
// disks flushed, the peer told.
func (n *Node) Run(ctx context.Context) error {
	group := newGroup()
	loops, stopLoops := context.WithCancel(context.WithoutCancel(ctx))
	defer stopLoops()
	for _, v := range n.volumes {
		group.run("volume "+v.cfg.Name, func() error { return v.run(loops) })
	}
	running := ctx
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	for _, s := range n.services {
		group.run("service "+s.cfg.Name, func() error { return s.run(ctx) })
		group.run("addresses of "+s.cfg.Name, func() error { return s.app.addresses.run(ctx) })
		for _, v := range s.volumes {
			if v.device != nil {
				group.run("device of "+v.cfg.Name, func() error { return v.device.run(ctx) })
			}
		}
	}
	for _, w := range n.peers.paths {
		group.run("path to "+w.at.String(), func() error { return n.peers.beatOn(ctx, w) })
	}
	for _, l := range n.peers.listeners {
		group.run("peer listener", func() error { return n.peers.serve(ctx, l) })
	}
	if n.self.Name < n.peer.Name {
		for _, v := range n.volumes {
			group.run("peer dialler", func() error { return n.peers.keepConnected(ctx, v) })
		}
	}
	for _, x := range n.exports {
		group.run("export of "+x.volume.cfg.Name, func() error { return x.run(ctx) })
	}
	group.run("control socket", func() error { return control.Serve(ctx, n.control, n, n.events, n.log) })
	err := group.first(running)
	if n.mayStop() {
		n.stop(context.WithoutCancel(running))
	} else {
		<-n.laidDown
	}
	cancel(errStopping)
	stopLoops()
	err = errors.Join(err, group.wait())
	n.comparisons.Wait()
	if n.client != nil {
		n.client.Close()
	}
	for _, s := range n.services {
		err = errors.Join(err, s.file.Close())
	}
	return errors.Join(err, n.dir.Close())
}

var errStopping = errors.New("the node stops")

// stopTimeout is how long a stopping node waits for its disks and its peer,
// besides what the user's stop commands may take.
const stopTimeout = 10 * time.Second

// stop ends serving in good order (rule 24): a primary hands over, a secondary
// gives its word; neither costs the peer a timeout. What cannot be done in time
// is left to the marks, which are durable.
func (n *Node) stop(ctx context.Context) {
	limit := stopTimeout
	for _, s := range n.cfg.Services {
		if len(s.Start)+len(s.Stop) > 0 || hasDevice(&s) {
			limit = stopTimeout + stopLimit
		}
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var all sync.WaitGroup
	for _, s := range n.services {
		all.Go(func() {
			if err := s.quit(ctx); err != nil {
				s.log.Warn("stopped before everything was handed over and flushed", "error", err)
			}
		})
	}
	all.Wait()
	n.part(ctx, "stops")
}

// part ends the sessions with the peer, and says why.
func (n *Node) part(ctx context.Context, why string) {
	for _, v := range n.volumes {
		v.doUntil(ctx.Done(), func(now time.Duration) {
			v.engine.Bye(now, n.self.Name+" "+why)
			if v.data != nil {
				v.data.Flush()
			}
			v.engine.Disconnect(now, "this node "+why)
		})
	}
}

// Alive reports whether every service's machine has turned within a time: who
// supervises the process may end it otherwise, and start another.
func (n *Node) Alive(within time.Duration) bool {
	for _, s := range n.services {
		if n.clock()-s.shown.Load().at >= within {
			return false
		}
	}
	return true
}

// AwaitReady waits until every service is as it is to stay, at most for a time.
func (n *Node) AwaitReady(ctx context.Context, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for _, s := range n.services {
		for s.shown.Load().machine.Colour() != failover.Ready && ctx.Err() == nil {
			wait(ctx, lookEvery)
		}
	}
}

func (n *Node) volume(name string) *volume { return n.volumes[name] }

func (n *Node) service(name string) *service {
	for _, s := range n.services {
		if s.cfg.Name == name {
			return s
		}
	}
	return nil
}

// group runs goroutines and collects how they end.
type group struct {
	wg   sync.WaitGroup
	once sync.Once
	end  chan struct{} // closed when one has failed
	mu   sync.Mutex
	errs []error
}

func newGroup() *group { return &group{end: make(chan struct{})} }

func (g *group) run(what string, f func() error) {
	g.wg.Go(func() {
		if err := f(); err != nil {
			g.mu.Lock()
			g.errs = append(g.errs, fmt.Errorf("%s: %w", what, err))
			g.mu.Unlock()
			g.once.Do(func() { close(g.end) })
		}
	})
}

// first waits until ctx ends or a goroutine fails.
func (g *group) first(ctx context.Context) error {
	select {
	case <-ctx.Done():
	case <-g.end:
	}
	return nil
}

func (g *group) wait() error {
	g.wg.Wait()
	return errors.Join(g.errs...)
}

var _ mirror.Arbiter = (*volume)(nil)
