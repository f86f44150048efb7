// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/twinbd/twinbd/failover"
	"github.com/twinbd/twinbd/failover/application"
)

// deviceSteps are the way up to file systems, below addresses and commands: all
// devices, then each file system is checked and mounted.
func (a *app) deviceSteps() (steps []application.Step) {
	var mounts []application.Step
	for _, v := range a.service.volumes {
		if v.device == nil {
			continue
		}
		name := v.cfg.Name
		steps = append(steps, application.Step{
			Name: "attach " + name, Up: v.device.attach,
			Down: a.service.disowned(v.device.detach), Force: a.service.disowned(v.device.force),
			UpLimit: attachLimit, DownLimit: detachLimit,
		})
		if m := v.cfg.Mount; m != nil {
			mount := application.Mount{
				Runner: a.runner, Device: v.device.path, At: m.At[a.service.node.self.Name], Type: m.Type, Options: m.Options,
			}
			mounts = append(mounts,
				application.Fsck{Runner: a.runner, Device: v.device.path, Type: m.Type}.Step("check "+name),
				letGo(mount.Step("mount "+name), mount.At))
		}
	}
	return append(steps, mounts...)
}

// letGo makes an unmount that is refused, for somebody uses the file system, end
// who does: the service goes to the other node all the same, and what stayed
// mounted here would be of no use, nor could it be mounted anew. What the cache
// holds is written before that, while the volume is served.
func letGo(s application.Step, at string) application.Step {
	down := s.Down
	s.Down = func(ctx context.Context, order application.Order) error {
		err := down(ctx, order)
		if err == nil || ctx.Err() != nil {
			return err
		}
		return errors.Join(err, flushFileSystem(ctx, at), s.Force(ctx, order))
	}
	return s
}

// severSteps are the last way up, so that in reverse they are the first to be
// forced down: a process that waits for a device without a server can be killed
// only when that has failed.
func (a *app) severSteps() (steps []application.Step) {
	for _, v := range a.service.volumes {
		if v.device != nil {
			steps = append(steps, application.Step{Name: "disconnect " + v.cfg.Name, Force: v.device.sever})
		}
	}
	return steps
}

// cleanUp deals with what an earlier process of this node has left: it is ended,
// for a node that has just started has no right (rules 20, 22). Only where the
// kernel still holds I/O for this process, or this one replaces the earlier one, and
// the record, as far as it is known here, names this node, that waits: the node may
// serve again, before any other did, and then goes on where the earlier one ended.
func (s *service) cleanUp(ctx context.Context) {
	d := s.file.State()
	if d.View.Holder == s.node.self.Name && d.Promise == 0 && d.Wanted == failover.WantStart && (s.running.Load() || s.holdsIO()) {
		s.inherited.Store(true)
		s.app.addresses.keep()
		s.event("device", "", "held", "what an earlier process of this node left waits; it goes on if this node serves again, before any other does", "")
		return
	}
	s.disown()
	s.app.cleanUp(ctx)
}

// holdsIO reports whether a device of the service is attached to this node still.
func (s *service) holdsIO() bool {
	for _, v := range s.volumes {
		if v.device == nil {
			continue
		}
		if _, ours, err := v.device.owned(); err == nil && ours {
			return true
		}
	}
	return false
}

// disinherit ends what an earlier process has left, as soon as it is known that
// this node does not serve again first: the other one does or may have, or the
// operator wants it stopped. It is asked after every input of the machine.
func (s *service) disinherit(ctx context.Context) {
	if !s.inherited.Load() || s.machine.Serving() {
		return
	}
	why := ""
	switch d := s.machine.Durable(); {
	case d.View.Holder != s.node.self.Name || d.Promise != 0:
		why = fmt.Sprintf("the service is %s's", s.node.peer.Name)
	case s.machine.PeerServes():
		why = s.node.peer.Name + " serves"
	case d.Wanted == failover.WantStop:
		why = "the service is stopped here"
	default:
		return
	}
	s.disown()
	s.event("device", "held", "", why+": what an earlier process of this node has left is ended", "")
	go s.app.cleanUp(ctx)
}

// disowned wraps a way down: whatever comes up after it inherits nothing.
func (s *service) disowned(work application.Func) application.Func {
	return func(ctx context.Context, order application.Order) error {
		s.disown()
		return work(ctx, order)
	}
}

// disown: nothing of an earlier process is taken over from now on.
func (s *service) disown() {
	s.inherited.Store(false)
	s.running.Store(false)
}
