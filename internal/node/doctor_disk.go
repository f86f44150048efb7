// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/internal/config"
)

// What the doctor finds of disks and directories.

// volatileFS lose what is on them with the power; remoteFS have it elsewhere.
var (
	volatileFS = map[string]bool{"tmpfs": true, "ramfs": true}
	remoteFS   = map[string]bool{"nfs": true, "smb": true, "cifs": true, "fuse": true, "overlay": true, "9p": true}
)

// stateSpace is how much room a node wants for what it remembers.
const stateSpace = 16 << 20

// checkDirectories: what must outlive a reboot is on something that does.
func (d *doctor) checkDirectories(context.Context) []Finding {
	dir := existing(d.machine.stat, d.self.State)
	f, err := d.machine.fileSystem(dir)
	switch {
	case err != nil:
		return []Finding{unseen(d.self.State, err)}
	case volatileFS[f.kind]:
		return []Finding{bad(fmt.Sprintf("set node.%s.state to a directory on a disk", d.self.Name),
			"%s is on %s, which forgets at every restart what this node has promised", d.self.State, f.kind)}
	case f.free < stateSpace:
		return []Finding{bad("make room", "%s has %d bytes free: a node that cannot remember what it decides stops", d.self.State, f.free)}
	}
	return []Finding{good("%s is on %s, %d MiB free", d.self.State, f.kind, f.free>>20)}
}

// existing is the path, or the nearest directory above that is there.
func existing(stat func(string) (fs.FileInfo, error), path string) string {
	for {
		if _, err := stat(path); err == nil || path == filepath.Dir(path) {
			return path
		}
		path = filepath.Dir(path)
	}
}

// checkDisks looks at this node's disk of each volume.
func (d *doctor) checkDisks(context.Context) []Finding {
	var found []Finding
	for i := range d.cfg.Services {
		for j := range d.cfg.Services[i].Volumes {
			found = append(found, d.checkDisk(&d.cfg.Services[i].Volumes[j])...)
		}
	}
	return found
}

func (d *doctor) checkDisk(v *config.Volume) []Finding {
	path := v.Disk[d.self.Name]
	info, err := d.machine.stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return append(d.roomFor(v, path), bad(fmt.Sprintf("`twinbd create %s`", v.Name), "%s: there is no %s yet", v.Name, path))
	case err != nil:
		return []Finding{unseen(path, err)}
	}
	found := d.checkMetadata(v)
	if info.Mode().IsRegular() {
		if info.Size() < v.Size {
			found = append(found, bad("the file was cut: restore it, or `twinbd create --anew "+v.Name+"`", "%s: %s has %d bytes, and the volume %d", v.Name, path, info.Size(), v.Size))
		}
		found = append(found, d.fileDisk(v, path)...)
	} else {
		found = append(found, d.blockDisk(v, path))
	}
	return found
}

// roomFor: a file that is to be made has room.
func (d *doctor) roomFor(v *config.Volume, path string) []Finding {
	if isDeviceName(path) {
		return nil
	}
	f, err := d.machine.fileSystem(existing(d.machine.stat, path))
	if err == nil && !v.Thin && f.free < v.Size {
		return []Finding{bad("make room, or set thin = true", "%s: %s needs %d bytes, and %d are free", v.Name, path, v.Size, f.free)}
	}
	return nil
}

// fileDisk judges the file system under a file.
func (d *doctor) fileDisk(v *config.Volume, path string) []Finding {
	f, err := d.machine.fileSystem(path)
	if err != nil {
		return []Finding{unseen("the file system of "+path, err)}
	}
	var found []Finding
	switch {
	case volatileFS[f.kind]:
		found = append(found, bad("put it on a disk", "%s: %s is on %s: it is gone after a power cut, on both nodes at once", v.Name, path, f.kind))
	case remoteFS[f.kind]:
		found = append(found, warned("put it on a disk of this machine", "%s: %s is on %s: what a flush means there, and who else may write, twinbd cannot know", v.Name, path, f.kind))
	default:
		found = append(found, good("%s: %s on %s, %d MiB free", v.Name, path, f.kind, f.free>>20))
	}
	if v.Thin && f.free < v.Size/10 {
		found = append(found, warned("make room", "%s: the file is thin, and %d MiB are left for it to grow: a full file system is a failed disk", v.Name, f.free>>20))
	}
	if v.Metadata != nil {
		if m, err := d.machine.fileSystem(v.Metadata[d.self.Name]); err == nil && m.device != f.device {
			found = append(found, warned("put both on one disk, unless you know why not", "%s: data and metadata are on two disks: the loss of either is the loss of this copy", v.Name))
		}
	}
	return found
}

// blockDisk says what a device is.
func (d *doctor) blockDisk(v *config.Volume, path string) Finding {
	cache, err := d.machine.cache(path)
	if err != nil {
		return good("%s: %s is a device", v.Name, path)
	}
	return good("%s: %s is a device; its cache is %q, and flushes empty it", v.Name, path, cache)
}

// checkMetadata reads what the disk says of itself, also while the node runs.
func (d *doctor) checkMetadata(v *config.Volume) []Finding {
	m, err := d.machine.inspect(v)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return []Finding{unseen("the metadata of "+v.Name, err)}
	case err != nil:
		return []Finding{failed("", err)}
	}
	h := &m.Header
	switch {
	case h.Cluster != d.cfg.Cluster || h.Volume != v.Name || h.Node != d.self.Name || h.Peer != d.peer.Name:
		return []Finding{bad("check the disk's path", "%s: the disk belongs to volume %s of node %s in cluster %s", v.Name, h.Volume, h.Node, h.Cluster)}
	case h.State == bitmap.Failed:
		return []Finding{bad(fmt.Sprintf("replace it and run `twinbd create --anew %s`", v.Name), "%s: the disk has failed: %s", v.Name, h.Reason)}
	case h.State == bitmap.Inconsistent:
		return []Finding{warned("bring "+d.peer.Name+" back: the copying goes on where it stopped", "%s: a copying onto this disk has not ended; it cannot serve", v.Name)}
	case m.HeaderErrors != [2]error{} || m.IntentsLost || len(m.BadPages) > 0:
		return []Finding{warned("look at the kernel's log and at smartctl", "%s: a part of the metadata is damaged; what it said counts as different", v.Name)}
	}
	return nil
}

// moduleState is whether the kernel has something.
type moduleState string

const (
	moduleHere   moduleState = "there"
	moduleCan    moduleState = "can be loaded"
	moduleAbsent moduleState = "absent"
)

// checkDevices: the kernel has what /dev/nbdX needs.
func (d *doctor) checkDevices(context.Context) []Finding {
	if !anyService(hasDevice)(d.cfg) {
		return nil
	}
	state, err := d.machine.module("nbd")
	switch {
	case err != nil:
		return []Finding{unseen("whether the kernel has /dev/nbdX", err)}
	case state == moduleAbsent:
		return []Finding{bad("install the kernel's extra modules, or leave `device` out and use the NBD socket", "the kernel has no nbd module, which `device` needs")}
	case state == moduleCan:
		return []Finding{warned("`modprobe nbd`, and nbd in /etc/modules-load.d/twinbd.conf", "the nbd module, which `device` needs, is not loaded")}
	}
	if k, err := d.machine.driver(); err == nil && !k.Replaces() {
		return []Finding{warned("run twinbd on Linux 4.12 or newer, in the machine's own network namespace",
			"the nbd module is reached by ioctl only: a device is lost with its connection, and with the daemon")}
	}
	return []Finding{good("the kernel has nbd")}
}
