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
// kernel refuses to mount a file system whose blocks are smaller than its device's,
// and looks for partitions where a table would have them in blocks of its device.
func (d *device) blockSize(ctx context.Context) (int, error) {
	v := d.volume
	first := make([]byte, beginning)
	f := &firstBlocks{done: make(chan block.Status, 1)}
	f.Op, f.Length, f.Owner = block.Read, min(beginning, v.cfg.Size), f
	f.Data = first[:f.Length]
	if !v.loop.Post(func() { v.batch.Requests = append(v.batch.Requests, &f.Request) }) {
		return 0, errStopping
	}
	select {
	case status := <-f.done:
		if status != block.OK {
			return 0, fmt.Errorf("read the beginning of %s: %w", v.cfg.Name, status)
		}
		return smallestBlock(first, v.cfg.Size), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("read the beginning of %s: %w", v.cfg.Name, context.Cause(ctx))
	}
}

// firstBlocks is a read that no client has asked for.
type firstBlocks struct {
	block.Request
	done chan block.Status
}

// Complete is called by the engine.
func (f *firstBlocks) Complete(r *block.Request) { f.done <- r.Status }

// beginning is how much of a volume says for which blocks it was made.
const beginning = 2 * block.Size

// sector is the smallest block of any device.
const sector = 512

// smallestBlock looks at the beginning of a disk of some size for what needs smaller
// blocks. What it does not know gets the larger ones.
func smallestBlock(b []byte, disk int64) int {
	const ext = 1024 // where ext2 to ext4 have their superblock
	size := nbd.KernelBlockSize
	switch {
	case string(b[:4]) == "XFSB":
		size = int(binary.BigEndian.Uint16(b[102:])) // its sector
	case binary.LittleEndian.Uint16(b[ext+56:]) == 0xef53:
		size = 1024 << min(binary.LittleEndian.Uint32(b[ext+24:]), 6)
	case isGPT(b, sector), string(b[sector:sector+8]) == "LABELONE":
		size = sector // partitions, LVM
	case isGPT(b, nbd.KernelBlockSize):
	case b[510] == 0x55 && b[511] == 0xaa:
		size = tableUnit(b[446:510], disk)
	}
	if size < sector || size > nbd.KernelBlockSize || size&(size-1) != 0 {
		return nbd.KernelBlockSize
	}
	return size
}

// isGPT reports whether a partition table (GPT) is in the second block of some size.
func isGPT(b []byte, size int) bool { return string(b[size:size+8]) == "EFI PART" }

// tableUnit is the size of the blocks in which an MBR counts, and does not say. It is
// the larger one if every partition lies on the disk then, and one is aligned by that
// to 1 MiB which else were not: where tools put the first one. What is no table, as
// the boot sector of FAT, gets the smaller one.
func tableUnit(table []byte, disk int64) int {
	const (
		entry     = 16
		alignment = 1 << 20
	)
	unit := sector
	for e := table; len(e) >= entry; e = e[entry:] {
		active, kind := e[0], e[4]
		start, length := int64(binary.LittleEndian.Uint32(e[8:])), int64(binary.LittleEndian.Uint32(e[12:]))
		if kind == 0 {
			continue
		}
		if active&0x7f != 0 || (start+length)*nbd.KernelBlockSize > disk {
			return sector
		}
		if start*sector%alignment != 0 && start*nbd.KernelBlockSize%alignment == 0 {
			unit = nbd.KernelBlockSize
		}
	}
	return unit
}
