// SPDX-License-Identifier: Apache-2.0

package block

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Signature names what a disk holds that is not ours to overwrite: a file
// system, a partition table, a volume manager's or another replicator's label,
// twinbd's own metadata. It is empty when nothing known is found, which is no
// proof that the disk is blank; see IsZero.
//
// The places and marks are those of the formats' own specifications; libblkid
// (util-linux) looks at the same ones.
func Signature(d Disk) (string, error) {
	p := probe{disk: d}
	if p.hasTwinbd() {
		return "twinbd metadata", nil
	}
	for _, s := range signatures {
		if p.has(s) {
			return s.refine(&p), p.err
		}
	}
	return "", p.err
}

// signature is a mark at a fixed place.
type signature struct {
	name   string
	offset int64 // bytes; negative: from the end of the disk
	align  int64 // the end of the disk is first rounded down to a multiple of it; 0: not
	mark   string
	detail func(*probe) string // gives the name; empty means that it is not one after all
}

func (s signature) refine(p *probe) string {
	if s.detail != nil {
		return s.detail(p)
	}
	return s.name
}

// signatures are in the order in which they count: what spans the disk comes
// before what may be left over from an earlier use, and the boot sector, which
// many formats imitate, last.
var signatures = []signature{
	{name: "LUKS", mark: "LUKS\xba\xbe"},
	{name: "LVM2 physical volume", offset: 512, mark: "LABELONE"},
	{name: "LVM2 physical volume", offset: 0, mark: "LABELONE"},
	{name: "LVM2 physical volume", offset: 1024, mark: "LABELONE"},
	{name: "LVM2 physical volume", offset: 1536, mark: "LABELONE"},
	{name: "md RAID member", offset: 4096, mark: "\xfc\x4e\x2b\xa9"},               // 1.2
	{name: "md RAID member", offset: 0, mark: "\xfc\x4e\x2b\xa9"},                  // 1.1
	{name: "md RAID member", offset: -8192, align: 4096, mark: "\xfc\x4e\x2b\xa9"}, // 1.0
	{name: "md RAID member", offset: -65536, align: 65536, mark: "\xfc\x4e\x2b\xa9"},
	{name: "DRBD metadata", offset: -4096 + 60, align: 4096, mark: "\x83\x74\x02\x6b"}, // 8
	{name: "DRBD metadata", offset: -4096 + 60, align: 4096, mark: "\x83\x74\x02\x6c"}, // 8.4, unclean
	{name: "DRBD metadata", offset: -4096 + 60, align: 4096, mark: "\x83\x74\x02\x6d"}, // 9
	{name: "ext2, ext3 or ext4", offset: 1024 + 56, mark: "\x53\xef", detail: extKind},
	{name: "XFS", mark: "XFSB"},
	{name: "btrfs", offset: 64<<10 + 64, mark: "_BHRfS_M"},
	{name: "F2FS", offset: 1024, mark: "\x10\x20\xf5\xf2"},
	{name: "bcache", offset: 4096 + 24, mark: "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"},
	{name: "bcachefs", offset: 4096 + 24, mark: "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"},
	{name: "OCFS2", offset: 8192, mark: "OCFSV2"},
	{name: "GFS2", offset: 65536, mark: "\x01\x16\x19\x70"},
	{name: "swap space", offset: 4096 - 10, mark: "SWAPSPACE2"},
	{name: "swap space", offset: 65536 - 10, mark: "SWAPSPACE2"},
	{name: "swap space", offset: 4096 - 10, mark: "S1SUSPEND\x00"},
	{name: "GPT partition table", offset: 512, mark: "EFI PART"},
	{name: "GPT partition table", offset: 4096, mark: "EFI PART"},
	{name: "GPT partition table", offset: -512, mark: "EFI PART"},
	{name: "NTFS", offset: 3, mark: "NTFS    "},
	{name: "exFAT", offset: 3, mark: "EXFAT   "},
	{name: "BitLocker", offset: 3, mark: "-FVE-FS-"},
	{name: "FAT", offset: 54, mark: "FAT"},
	{name: "FAT", offset: 82, mark: "FAT32"},
	{name: "ISO 9660", offset: 32769, mark: "CD001"},
	{name: "JFS", offset: 32768, mark: "JFS1"},
	{name: "ReiserFS", offset: 65536 + 52, mark: "ReIsEr"},
	{name: "squashfs", mark: "hsqs"},
	{name: "qcow2 image", mark: "QFI\xfb"},
	{name: "VHDX image", mark: "vhdxfile"},
	{name: "VMDK image", mark: "KDMV"},
	{name: "boot sector or MBR partition table", offset: 510, mark: "\x55\xaa"},
}

// probe reads a disk here and there, and keeps the first error.
type probe struct {
	disk Disk
	err  error
}

// at reads n bytes; none where the disk does not have so many.
func (p *probe) at(offset int64, n int) []byte {
	if p.err != nil || offset < 0 || offset+int64(n) > p.disk.Size() {
		return nil
	}
	b := make([]byte, n)
	if err := p.disk.ReadAt(b, offset); err != nil {
		p.err = fmt.Errorf("look for signatures: %w", err)
		return nil
	}
	return b
}

func (p *probe) has(s signature) bool {
	offset := s.offset
	if offset < 0 {
		end := p.disk.Size()
		if s.align > 0 {
			end -= end % s.align
		}
		offset += end
	}
	return bytes.Equal(p.at(offset, len(s.mark)), []byte(s.mark)) && s.refine(p) != ""
}

// extKind tells the ext file systems apart by their feature words, which stand
// from byte 92 of the superblock. The mark alone is too short to be believed:
// the block size, as a power of two in byte 24, must be a possible one.
func extKind(p *probe) string {
	const (
		hasJournal = 0x4   // compatible
		newerThan3 = 0x2c0 // incompatible: extents, 64bit, flex_bg
	)
	b := p.at(1024, 104)
	if b == nil || binary.LittleEndian.Uint32(b[24:]) > 6 {
		return ""
	}
	compatible, incompatible := binary.LittleEndian.Uint32(b[92:]), binary.LittleEndian.Uint32(b[96:])
	switch {
	case incompatible&newerThan3 != 0:
		return "ext4"
	case compatible&hasJournal != 0:
		return "ext3"
	}
	return "ext2"
}

// metadataMark begins both header slots of twinbd's metadata (package bitmap);
// one digit with the version of the format follows.
const metadataMark = "twinbdH"

// hasTwinbd looks for our own metadata: at the start, where a metadata file has
// it, and in the last part of the disk, where its place depends on the size of
// the volume that it belongs to. It takes one bit per block of the volume, which
// is size/32768, and little else; twice that and some is looked through.
func (p *probe) hasTwinbd() bool {
	if bytes.Equal(p.at(0, len(metadataMark)), []byte(metadataMark)) {
		return true
	}
	const sector = 512
	size := p.disk.Size()
	from := max(0, size-size>>14-16<<20) &^ (Size - 1)
	buf := make([]byte, 1<<20)
	for offset := from; offset < size && p.err == nil; {
		start, end := offset, size
		if m, ok := p.disk.(Mapper); ok {
			if start, end, p.err = m.NextData(offset); p.err != nil {
				return false
			}
			start &^= Size - 1
		}
		end = min(end, start+int64(len(buf)))
		if err := p.disk.ReadAt(buf[:end-start], start); err != nil {
			p.err = fmt.Errorf("look for signatures: %w", err)
			return false
		}
		for at := int64(0); at+sector <= end-start; at += sector {
			if bytes.HasPrefix(buf[at:], []byte(metadataMark)) {
				return true
			}
		}
		offset = end
	}
	return false
}
