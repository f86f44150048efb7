// SPDX-License-Identifier: Apache-2.0

package node

import (
	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/failover/application"
	"github.com/twinbd/twinbd/nbd"
)

// A device that the driver could attach by ioctl only is frail: it is lost with its
// connection, and with the process.

// attachedByIoctl is what the log says of a device that is frail.
const attachedByIoctl = "attached by ioctl: neither its connection nor this process can be replaced meanwhile; hint: Linux 4.12 or newer, in the machine's own network namespace"

// look is the driver's, and where that does not know who has the device open, it asks the
// processes.
func (d *device) look(k deviceKernel) (nbd.DeviceState, error) {
	st, err := k.Look(d.index)
	if err == nil && !st.Used && !k.Replaces() {
		st.Used = application.Device(d.path).Users() != ""
	}
	return st, err
}

// isFrail reports whether the device is attached so that it ends with this process.
func (d *device) isFrail() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.wanted && d.frail
}

// lose disconnects a device that cannot be mended: what was under way on the connection
// that has died would wait for an answer for ever.
func (d *device) lose(k deviceKernel) error {
	if err := k.Disconnect(d.index); err != nil {
		return err
	}
	lost := &control.Refusal{
		Message: d.path + " has lost its connection, which cannot be replaced, for it was attached by ioctl: what is asked of it fails",
		Hint:    "`twinbd switch`, or stop the service here and start it again",
	}
	d.mu.Lock()
	if d.wanted { // else it was given up meanwhile
		d.wanted, d.lost = false, lost
	}
	d.mu.Unlock()
	d.volume.service.event("device", "attached", "lost", lost.Message, "")
	return nil
}
