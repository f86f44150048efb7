// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/twinbd/twinbd/internal/freeport"
)

// nbdkit is its file plugin: one copy.
type nbdkit struct{ servers }

func (n *nbdkit) start(ctx context.Context) error {
	disk := filepath.Join(n.disks, "disk")
	if err := n.makeDirs(); err != nil {
		return err
	}
	if err := n.fill(disk); err != nil {
		return err
	}
	return n.spawn(ctx, "nbdkit", accepts("unix", n.socket()),
		"nbdkit", "--foreground", "--unix", n.socket(), "file", disk)
}

// quorum is a qemu-storage-daemon that writes to a file and to an nbdkit over
// TCP, as the two nodes of a pair would, and reads from the file. QEMU's own
// server on the far side would be two to three times slower, and its mirror,
// instead of quorum, would not forward FLUSH. The far side does not tell where
// its holes are: QEMU asks before every read, and the answer costs a
// millisecond on tmpfs.
type quorum struct{ servers }

func (q *quorum) start(ctx context.Context) error {
	near, far := filepath.Join(q.disks, "near"), filepath.Join(q.disks, "far")
	if err := q.makeDirs(); err != nil {
		return err
	}
	for _, disk := range []string{near, far} {
		if err := q.fill(disk); err != nil {
			return err
		}
	}
	ports, err := freeport.Find(1)
	if err != nil {
		return err
	}
	number := strconv.Itoa(ports[0])
	err = q.spawn(ctx, "far", accepts("tcp", "127.0.0.1:"+number),
		"nbdkit", "--foreground", "--ipaddr", "127.0.0.1", "--port", number, "--filter=noextents", "file", far)
	if err != nil {
		return err
	}
	return q.spawn(ctx, "quorum", accepts("unix", q.socket()),
		"qemu-storage-daemon",
		"--blockdev", "driver=file,node-name=near,filename="+near,
		"--blockdev", "driver=nbd,node-name=far,server.type=inet,server.host=127.0.0.1,server.port="+number,
		"--blockdev", "driver=quorum,node-name=both,children.0=near,children.1=far,vote-threshold=2,read-pattern=fifo",
		"--nbd-server", "addr.type=unix,addr.path="+q.socket(),
		"--export", "type=nbd,id=export,node-name=both,name=both,writable=on")
}

func (q *quorum) uri() string { return fmt.Sprintf("nbd+unix:///both?socket=%s", q.socket()) }
