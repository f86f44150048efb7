// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"fmt"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/failover/application"
)

// attachByHand attaches a volume's device, or all of the service's, on the node
// that serves: for a file system that is to be made or repaired.
func (s *service) attachByHand(ctx context.Context, a control.Action, progress func(control.Progress)) error {
	return s.eachDevice(a, func(d *device) error {
		if !d.volume.status.Load().Primary {
			return &control.Refusal{Message: s.whereServed(d.volume), Hint: "`twinbd attach` there, or `twinbd switch` first"}
		}
		ctx, cancel := context.WithTimeout(ctx, attachLimit)
		defer cancel()
		if err := d.attach(ctx, application.Order{}); err != nil {
			return err
		}
		text, _ := d.state()
		progress(control.Progress{Text: fmt.Sprintf("%s: %s is %s", d.volume.cfg.Name, d.path, text)})
		return nil
	})
}

// detachByHand undoes it. What is in use stays: the service's stop is for that.
func (s *service) detachByHand(ctx context.Context, a control.Action, progress func(control.Progress)) error {
	return s.eachDevice(a, func(d *device) error {
		ctx, cancel := context.WithTimeout(ctx, detachLimit)
		defer cancel()
		at, users, err := d.inUse(ctx)
		switch {
		case err != nil:
			return err
		case at != "":
			return &control.Refusal{Message: fmt.Sprintf("%s is mounted at %s", d.path, at), Hint: "umount " + at + ", or stop the service"}
		case users != "":
			return &control.Refusal{Message: fmt.Sprintf("%s is open in %s", d.path, users), Hint: "end them, or stop the service"}
		}
		if err := d.detach(ctx, application.Order{}); err != nil {
			return err
		}
		progress(control.Progress{Text: fmt.Sprintf("%s: %s is detached", d.volume.cfg.Name, d.path)})
		return nil
	})
}

// eachDevice does something with the devices that an action is about.
func (s *service) eachDevice(a control.Action, work func(*device) error) error {
	found := false
	for _, v := range s.volumes {
		if a.Volume != "" && a.Volume != v.cfg.Name || v.device == nil {
			continue
		}
		found = true
		if err := work(v.device); err != nil {
			return err
		}
	}
	if !found {
		what := a.Volume
		if what == "" {
			what = "any volume of " + s.cfg.Name
		}
		return &control.Refusal{Message: fmt.Sprintf("no device is configured for %s on %s", what, s.node.self.Name), Hint: `add device = "/dev/nbd0" to the volume`}
	}
	return nil
}
