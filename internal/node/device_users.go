// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"fmt"
	"strings"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/failover/application"
	"github.com/twinbd/twinbd/nbd"
)

// Who else uses a device: another daemon, a mount, a process.

// judge says why the device cannot be had, or nil.
func (d *device) judge(st nbd.DeviceState, mountedAt, users string) error {
	refuse := func(hint, format string, args ...any) error {
		return &control.Refusal{Message: d.path + " " + fmt.Sprintf(format, args...), Hint: hint}
	}
	switch ours := d.ours(st); {
	case ours && st.Size != d.volume.cfg.Size:
		return refuse("stop the service here, or reboot this node", "is attached with %d bytes, and the volume has %d", st.Size, d.volume.cfg.Size)
	case ours:
		return nil
	case st.Attached && st.Backend != "":
		return refuse("give the volume another device, or detach it there", "is attached already, by %s", st.Backend)
	case st.Attached:
		return refuse("give the volume another device, or end that one: nbd-client -d "+d.path, "is attached already, by process %d", st.PID)
	case mountedAt != "":
		return refuse("umount "+mountedAt, "is mounted at %s, from before it was detached", mountedAt)
	case len(st.Holders) > 0:
		return refuse("give the volume another device, or take it out there", "is part of %s", strings.Join(st.Holders, ", "))
	case st.Used && users != "":
		return refuse("end them, or give the volume another device", "is open in %s", users)
	case st.Used:
		return refuse("`fuser -v "+d.path+"` says by whom; if nobody, reboot this node", "is in use")
	}
	return nil
}

// settled looks, and once more while somebody only glances: udev opens every
// device that changes.
func (d *device) settled(ctx context.Context, k deviceKernel) (nbd.DeviceState, error) {
	ctx, cancel := context.WithTimeout(ctx, closedPatience)
	defer cancel()
	for {
		st, err := d.look(k)
		if err != nil || !st.Used || st.Attached || ctx.Err() != nil {
			return st, err
		}
		wait(ctx, lookEvery)
	}
}

// inUse says where the device is mounted, or who has it open. It waits a little for who
// only glances at it, as udev does.
func (d *device) inUse(ctx context.Context) (mountedAt, users string, err error) {
	ctx, cancel := context.WithTimeout(ctx, closedPatience)
	defer cancel()
	for {
		mountedAt, err = application.Device(d.path).MountedAt()
		users = application.Device(d.path).Users()
		if err != nil || mountedAt != "" || users == "" || ctx.Err() != nil {
			return mountedAt, users, err
		}
		wait(ctx, lookEvery)
	}
}

func (d *device) stillOpen() error {
	by := ""
	if at, err := application.Device(d.path).MountedAt(); err == nil && at != "" {
		by = ", mounted at " + at
	} else if users := application.Device(d.path).Users(); users != "" {
		by = " in " + users
	}
	return &control.Refusal{
		Message: fmt.Sprintf("%s is still open%s after it was disconnected: nothing that is written to it reaches a disk", d.path, by),
		Hint:    "reboot this node, or end what has it open, before it serves again",
	}
}
