// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/twinbd/twinbd/failover/application"
	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/nbd"
)

// A process is replaced while its node serves: by a newer version of the program, or
// for another configuration. It comes to rest at the boundary of a request, flushes,
// and hands its ends of the kernel's connections to its successor, which goes on
// reading where it stopped: the kernel sees a pause and nothing else. The successor
// inherits no right (rule 22): it compares with its peer, which lacks nothing, and
// asks as everybody does who has restarted.

// Legacy is what a process leaves to its successor.
type Legacy struct {
	Sockets map[string][]*os.File // our ends of the kernel's connections, by volume
	Pipes   []*os.File            // to which applications print
	Served  []string              // services that this node served
	Running []string              // … and whose application runs on
}

// Limits of what the successor is kept waiting by. The kernel gives a connection up
// that does not answer within nbd.KernelTimeout.
const (
	restLimit   = nbd.KernelTimeout / 2 // for requests under way
	clientLimit = restLimit / 4         // for clients that connect anew when they are cut off
	demoteLimit = 10 * time.Second      // for flushes; what waits in the kernel meanwhile may be sent again
)

// errServesOn says that a node was not brought to rest.
var errServesOn = errors.New("this node serves on")

// HandedOn reports whether the node has laid everything down, or is about to: it does
// not serve any more, and its process is to be replaced, or to end.
func (n *Node) HandedOn() bool { return n.handedOn.Load() }

// HandOn brings the node to rest, and returns what its successor needs. If that cannot
// be done, or requests do not end in time, the node serves on. After any other error,
// and after success, HandedOn is true.
func (n *Node) HandOn(ctx context.Context) (*Legacy, error) {
	if err := errors.Join(n.mayRest(), ctx.Err()); err != nil {
		return nil, fmt.Errorf("%w: %w", errServesOn, err)
	}
	if err := n.rest(ctx); err != nil {
		return nil, err
	}
	if !n.mayHandOn() {
		return nil, fmt.Errorf("%w: it is about to stop", errServesOn)
	}
	defer close(n.laidDown)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), demoteLimit) // whoever stops the node stops its successor
	defer cancel()
	legacy := &Legacy{Sockets: make(map[string][]*os.File), Pipes: application.Pipes()}
	for _, s := range n.services {
		if err := s.halt(ctx); err != nil {
			return nil, err
		}
		if s.machine.Serves(s.machine.Term()) {
			legacy.Served = append(legacy.Served, s.cfg.Name)
		}
		if s.machine.Runs() {
			legacy.Running = append(legacy.Running, s.cfg.Name)
		}
	}
	if err := n.layDown(ctx); err != nil {
		return nil, err
	}
	for name, v := range n.volumes {
		if v.device == nil {
			continue
		}
		if !v.doUntil(ctx.Done(), func(time.Duration) { legacy.Sockets[name] = v.device.giveEnds() }) {
			return nil, fmt.Errorf("volume %s: its loop does not turn", name)
		}
	}
	return legacy, nil
}

// mayHandOn and mayStop decide which of the two happens: the other comes too late.
func (n *Node) mayHandOn() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.stopping {
		n.handedOn.Store(true)
	}
	return !n.stopping
}

func (n *Node) mayStop() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stopping = !n.handedOn.Load()
	return n.stopping
}

// mayRest says what speaks against replacing the process now, or nil.
func (n *Node) mayRest() error {
	for _, s := range n.services {
		if m := &s.shown.Load().machine; m.Changing() {
			return fmt.Errorf("service %s is just beginning or ending to be served here", s.cfg.Name)
		}
	}
	for name, v := range n.volumes {
		if v.Hung() >= clientLimit {
			return fmt.Errorf("volume %s: %s", name, v.hungWhy())
		}
		if why := v.status.Load().DiskFailed; why != "" {
			return fmt.Errorf("volume %s: the disk has failed: %s; restart twinbd instead", name, why)
		}
		if v.device != nil && v.device.isFrail() {
			return fmt.Errorf("volume %s: %s was attached by ioctl, and would not outlive this process; hint: `twinbd switch` first", name, v.device.path)
		}
	}
	return nil
}

// rest waits until every request that was read is answered.
func (n *Node) rest(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, restLimit)
	defer cancel()
	var all sync.WaitGroup
	for _, v := range n.volumes {
		all.Go(func() { v.rest(ctx) })
	}
	all.Wait()
	if ctx.Err() == nil {
		return nil
	}
	for _, v := range n.volumes {
		v.post(func(time.Duration) { v.resume() })
	}
	return fmt.Errorf("requests do not come to an end within %v: %w; hint: see `twinbd status`, and try again", restLimit, errServesOn)
}

// rest has every session of the volume read no further than to the end of a request,
// and waits until all are answered. No client is let in meanwhile, and one that stops in
// the middle of a request, or reads no answers, is cut off.
func (v *volume) rest(ctx context.Context) {
	over, open := make(chan struct{}), 1
	drained := func() {
		if open--; open == 0 {
			close(over)
		}
	}
	if !v.doUntil(ctx.Done(), func(time.Duration) {
		v.resting = true
		for session := range v.sessions {
			open++
			session.Drain(drained)
		}
		drained()
	}) {
		return
	}
	impatient := time.AfterFunc(clientLimit, func() { v.post(func(time.Duration) { v.cutOffClients() }) })
	defer impatient.Stop()
	select {
	case <-over:
	case <-ctx.Done():
	}
}

// cutOffClients ends connections that are not the kernel's, and not at rest.
func (v *volume) cutOffClients() {
	for session, port := range v.sessions {
		if !v.device.serves(session) && v.resting && !session.Resting() {
			port.Close()
		}
	}
}

// resume lets clients go on.
func (v *volume) resume() {
	v.resting = false
	for session := range v.sessions {
		session.Resume()
	}
}

// layDown makes everything durable, and parts from the peer, which has it all.
func (n *Node) layDown(ctx context.Context) error {
	done := make(chan struct{}, len(n.volumes))
	for _, v := range n.volumes {
		v.post(func(now time.Duration) { v.engine.Demote(now, block.ShuttingDown, func() { done <- struct{}{} }) })
	}
	for range n.volumes {
		select {
		case <-done:
		case <-ctx.Done():
			return errors.New("a disk did not flush in time: the successor would have to wait for it")
		}
	}
	n.part(ctx, "is being replaced")
	return nil
}

// giveEnds gives up the connections with the kernel without closing them. Loop's
// thread only.
func (d *device) giveEnds() (ends []*os.File) {
	for _, e := range d.ends {
		ends = append(ends, e.file)
	}
	d.ends = nil
	slices.SortFunc(ends, func(a, b *os.File) int { return int(a.Fd()) - int(b.Fd()) })
	return ends
}

// succeed takes what the process before this one left.
func (n *Node) succeed(l *Legacy) {
	if l == nil {
		return
	}
	application.ReadOn(l.Pipes)
	for _, s := range n.services {
		s.running.Store(slices.Contains(l.Running, s.cfg.Name))
		for _, v := range s.volumes {
			if v.device != nil {
				v.device.left = l.Sockets[v.cfg.Name]
				delete(l.Sockets, v.cfg.Name)
			}
		}
	}
	for _, ends := range l.Sockets { // of volumes that this configuration does not have
		closeAll(ends)
	}
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
