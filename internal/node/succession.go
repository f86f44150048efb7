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
	Running []string              // services whose application runs on
}

// Limits of what the successor is kept waiting by. The kernel gives a connection up
// that does not answer within nbd.KernelTimeout.
const (
	restLimit   = nbd.KernelTimeout / 2 // for requests under way
	demoteLimit = 10 * time.Second      // for flushes; what waits in the kernel meanwhile may be sent again
)

// errServesOn says that a node was not brought to rest.
var errServesOn = errors.New("this node serves on")

// HandedOn reports whether the node has laid everything down, or is about to: it does
// not serve any more.
func (n *Node) HandedOn() bool { return n.handedOn.Load() }

// HandOn brings the node to rest, and returns what its successor needs. If requests
// do not end in time, the node serves on and an error says so. After any other error,
// and after success, it serves nobody any more: the process is to be replaced, or to
// end.
func (n *Node) HandOn(ctx context.Context) (*Legacy, error) {
	if err := n.rest(ctx); err != nil {
		return nil, err
	}
	n.handedOn.Store(true)
	legacy := &Legacy{Sockets: make(map[string][]*os.File)}
	for _, s := range n.services {
		if s.halt(); s.machine.Runs() {
			legacy.Running = append(legacy.Running, s.cfg.Name)
		}
	}
	if err := n.layDown(ctx); err != nil {
		return nil, err
	}
	for name, v := range n.volumes {
		if v.device != nil {
			v.do(func(time.Duration) { legacy.Sockets[name] = v.device.giveEnds() })
		}
	}
	return legacy, nil
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
// and waits until all are answered. No client is let in meanwhile.
func (v *volume) rest(ctx context.Context) {
	var open sync.WaitGroup
	v.doUntil(ctx.Done(), func(time.Duration) {
		v.resting = true
		for session := range v.sessions {
			open.Add(1)
			session.Drain(open.Done)
		}
	})
	over := make(chan struct{})
	go func() {
		open.Wait()
		close(over)
	}()
	select {
	case <-over:
	case <-ctx.Done():
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
	ctx, cancel := context.WithTimeout(ctx, demoteLimit)
	defer cancel()
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
	for session, end := range d.ends {
		ends = append(ends, end)
		delete(d.ends, session)
	}
	slices.SortFunc(ends, func(a, b *os.File) int { return int(a.Fd()) - int(b.Fd()) })
	return ends
}

// succeed takes what the process before this one left.
func (n *Node) succeed(l *Legacy) {
	if l == nil {
		return
	}
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
