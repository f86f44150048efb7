// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/internal/block"
)

// The file that a resolve leaves: the blocks that the losing node had written
// since the split, as they were (docs/FORMAT.md). Numbers are big endian, names are
// their length in one byte and their bytes.
//
//	magic 8, version 4, block size 4, volume size 8, time 8 (ns since 1970),
//	volume id 16, generation 16, base 16, generation of the keeper 16,
//	pieces 8, blocks 8, then names: cluster, service, volume, node, keeper
//	each piece: first block 8, blocks 4, kind 4 (0 data, 1 zeroes), then the data
//	sha256 of everything before, 32
const (
	splitMagic   = "twbdSpl1"
	splitVersion = 1

	pieceData   = 0
	pieceZeroes = 1

	// maxPiece bounds a piece: 1 MiB.
	maxPiece = 256
)

// SplitFile is what the head of such a file says.
type SplitFile struct {
	Cluster, Service, Volume string
	Node, Keeper             string // the node that lost, and the one whose data counts
	Time                     time.Time
	Size                     int64 // of the volume
	VolumeID                 [16]byte
	Generation, Base         bitmap.Generation // of the node that lost
	KeeperGeneration         bitmap.Generation
	Pieces, Blocks           int64
}

// piece is a run of blocks in the file.
type piece struct {
	bitmap.Run
	data []byte // nil: zeroes
}

func (f *SplitFile) names() []*string {
	return []*string{&f.Cluster, &f.Service, &f.Volume, &f.Node, &f.Keeper}
}

func (f *SplitFile) append(b []byte) []byte {
	b = append(b, splitMagic...)
	b = binary.BigEndian.AppendUint32(b, splitVersion)
	b = binary.BigEndian.AppendUint32(b, block.Size)
	b = binary.BigEndian.AppendUint64(b, uint64(f.Size))
	b = binary.BigEndian.AppendUint64(b, uint64(f.Time.UnixNano()))
	for _, id := range [][16]byte{f.VolumeID, f.Generation, f.Base, f.KeeperGeneration} {
		b = append(b, id[:]...)
	}
	b = binary.BigEndian.AppendUint64(b, uint64(f.Pieces))
	b = binary.BigEndian.AppendUint64(b, uint64(f.Blocks))
	for _, name := range f.names() {
		b = append(append(b, byte(len(*name))), *name...)
	}
	return b
}

// cut divides runs of blocks into pieces.
func cut(runs []bitmap.Run) (pieces []bitmap.Run) {
	for _, r := range runs {
		for r.Count > 0 {
			n := min(r.Count, maxPiece)
			pieces = append(pieces, bitmap.Run{First: r.First, Count: n})
			r.First, r.Count = r.First+n, r.Count-n
		}
	}
	return pieces
}

// span is where a run of blocks is in a volume, in bytes.
func span(r bitmap.Run, size int64) (offset, length int64) {
	offset = r.First * block.Size
	return offset, min(r.Count*block.Size, size-offset)
}

// writeSplit writes a file: the head, and the blocks as read gives them. It sets
// the head's Pieces and Blocks. progress is told how many bytes are done.
func writeSplit(w io.Writer, f *SplitFile, runs []bitmap.Run, read func(p []byte, offset int64) error, progress func(done, total int64)) error {
	pieces := cut(runs)
	f.Pieces, f.Blocks = int64(len(pieces)), 0
	for _, p := range pieces {
		f.Blocks += p.Count
	}
	sum := sha256.New()
	out := bufio.NewWriterSize(io.MultiWriter(w, sum), 1<<20)
	if _, err := out.Write(f.append(nil)); err != nil {
		return err
	}
	buffer := make([]byte, maxPiece*block.Size)
	done := int64(0)
	for _, p := range pieces {
		offset, length := span(p, f.Size)
		data := buffer[:length]
		if err := read(data, offset); err != nil {
			return fmt.Errorf("read the disk at byte %d: %w", offset, err)
		}
		if err := writePiece(out, p, data); err != nil {
			return err
		}
		done += p.Count
		progress(done*block.Size, f.Blocks*block.Size)
	}
	if err := out.Flush(); err != nil {
		return err
	}
	_, err := w.Write(sum.Sum(nil))
	return err
}

func writePiece(w io.Writer, p bitmap.Run, data []byte) error {
	kind := uint32(pieceData)
	if len(bytes.TrimLeft(data, "\x00")) == 0 {
		kind, data = pieceZeroes, nil
	}
	var head [16]byte
	binary.BigEndian.PutUint64(head[:], uint64(p.First))
	binary.BigEndian.PutUint32(head[8:], uint32(p.Count))
	binary.BigEndian.PutUint32(head[12:], kind)
	if _, err := w.Write(head[:]); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

// splitReader reads what writeSplit wrote, and believes nothing before it checked.
type splitReader struct {
	in  *bufio.Reader
	sum hash.Hash
	SplitFile
	left   int64 // pieces
	blocks int64 // seen
	next   int64 // the first block that may come
	buffer []byte
}

var errNotSplit = errors.New("this is no file that `twinbd resolve` has saved")

// newSplitReader reads the head.
func newSplitReader(r io.Reader) (*splitReader, error) {
	s := &splitReader{in: bufio.NewReaderSize(r, 1<<20), sum: sha256.New(), buffer: make([]byte, maxPiece*block.Size)}
	fixed := s.buffer[:112]
	if err := s.read(fixed); err != nil || string(fixed[:8]) != splitMagic {
		return nil, errNotSplit
	}
	if v := binary.BigEndian.Uint32(fixed[8:]); v != splitVersion {
		return nil, fmt.Errorf("the file has version %d, and this twinbd reads %d; hint: use a newer one", v, splitVersion)
	}
	s.Size = int64(binary.BigEndian.Uint64(fixed[16:]))
	s.Time = time.Unix(0, int64(binary.BigEndian.Uint64(fixed[24:]))).UTC()
	copy(s.VolumeID[:], fixed[32:])
	copy(s.Generation[:], fixed[48:])
	copy(s.Base[:], fixed[64:])
	copy(s.KeeperGeneration[:], fixed[80:])
	s.Pieces = int64(binary.BigEndian.Uint64(fixed[96:]))
	s.Blocks = int64(binary.BigEndian.Uint64(fixed[104:]))
	if binary.BigEndian.Uint32(fixed[12:]) != block.Size || s.Size <= 0 || s.Size > bitmap.MaxSize || s.Pieces < 0 || s.Blocks < s.Pieces {
		return nil, errNotSplit
	}
	for _, name := range s.names() {
		var length [1]byte
		if err := s.read(length[:]); err != nil {
			return nil, err
		}
		text := make([]byte, length[0])
		if err := s.read(text); err != nil {
			return nil, err
		}
		*name = string(text)
	}
	s.left = s.Pieces
	return s, nil
}

func (s *splitReader) read(p []byte) error {
	if _, err := io.ReadFull(s.in, p); err != nil {
		return fmt.Errorf("the file is cut short: %w", io.ErrUnexpectedEOF)
	}
	s.sum.Write(p)
	return nil
}

// piece returns the next one, whose data is good until the next call; io.EOF when
// there is none left and the checksum was right.
func (s *splitReader) piece() (piece, error) {
	if s.left == 0 {
		return piece{}, s.end()
	}
	s.left--
	head := s.buffer[:16]
	if err := s.read(head); err != nil {
		return piece{}, err
	}
	first, count := int64(binary.BigEndian.Uint64(head)), int64(binary.BigEndian.Uint32(head[8:]))
	kind := binary.BigEndian.Uint32(head[12:])
	blocks := (s.Size + block.Size - 1) / block.Size
	if first < s.next || count < 1 || count > maxPiece || first > blocks-count || kind > pieceZeroes {
		return piece{}, errors.New("the file is damaged: a piece lies where none can be")
	}
	p := piece{Run: bitmap.Run{First: first, Count: count}}
	s.next, s.blocks = first+count, s.blocks+count
	if kind == pieceZeroes {
		return p, nil
	}
	_, length := span(p.Run, s.Size)
	p.data = s.buffer[:length]
	return p, s.read(p.data)
}

func (s *splitReader) end() error {
	var found [sha256.Size]byte
	want := s.sum.Sum(nil)
	_, err := io.ReadFull(s.in, found[:])
	switch {
	case err != nil:
		return fmt.Errorf("the file is cut short: %w", io.ErrUnexpectedEOF)
	case !bytes.Equal(found[:], want) || s.blocks != s.Blocks:
		return errors.New("the file is damaged: its checksum is wrong")
	}
	if _, err := s.in.ReadByte(); err == nil {
		return errors.New("the file is damaged: something follows its end")
	}
	return io.EOF
}
