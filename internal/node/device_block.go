// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/nbd"
)

// blockSize is the logical block size that the device is to have: 4 KiB, unless
// what is on the volume was made for smaller ones, as an adopted disk's may be. A
// kernel refuses to mount a file system whose blocks are smaller than its device's.
func (d *device) blockSize(ctx context.Context) (int, error) {
	v := d.volume
	f := &firstBlock{done: make(chan block.Status, 1)}
	f.Op, f.Length, f.Data, f.Owner = block.Read, block.Size, make([]byte, block.Size), f
	if !v.loop.Post(func() { v.batch.Requests = append(v.batch.Requests, &f.Request) }) {
		return 0, errStopping
	}
	select {
	case status := <-f.done:
		if status != block.OK {
			return 0, fmt.Errorf("read the first block of %s: %w", v.cfg.Name, status)
		}
		return smallestBlock(f.Data), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("read the first block of %s: %w", v.cfg.Name, context.Cause(ctx))
	}
}

// firstBlock is a read that no client has asked for.
type firstBlock struct {
	block.Request
	done chan block.Status
}

// Complete is called by the engine.
func (f *firstBlock) Complete(r *block.Request) { f.done <- r.Status }

// smallestBlock looks at the first 4 KiB of a disk for what needs smaller blocks.
// What it does not know gets the larger ones.
func smallestBlock(b []byte) int {
	const (
		sector = 512
		ext    = 1024 // where ext2 to ext4 have their superblock
	)
	size := nbd.KernelBlockSize
	switch {
	case string(b[:4]) == "XFSB":
		size = int(binary.BigEndian.Uint16(b[102:])) // its sector
	case binary.LittleEndian.Uint16(b[ext+56:]) == 0xef53:
		size = 1024 << min(binary.LittleEndian.Uint32(b[ext+24:]), 6)
	case b[510] == 0x55 && b[511] == 0xaa, string(b[sector:sector+8]) == "EFI PART", string(b[sector:sector+8]) == "LABELONE":
		size = sector // partitions, FAT, LVM
	}
	if size < sector || size > nbd.KernelBlockSize || size&(size-1) != 0 {
		return nbd.KernelBlockSize
	}
	return size
}
