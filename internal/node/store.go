// SPDX-License-Identifier: Apache-2.0

package node

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/internal/config"
)

// store is a volume's two disks on one node: its data and its metadata. Where
// the data is a block device the metadata is in its last part; a file has a
// sibling. Either can be elsewhere by configuration.
type store struct {
	cfg    *config.Config
	volume *config.Volume
	node   string

	data, meta block.Disk
	owned      []block.Disk // what is closed at the end, in this order
	id         string       // of the data disk
}

func (s *store) diskPath() string { return s.volume.Disk[s.node] }

// metaPath is where the metadata is, or empty when it is behind the data.
func (s *store) metaPath(isFile bool) string {
	switch {
	case s.volume.Metadata != nil:
		return s.volume.Metadata[s.node]
	case isFile:
		return s.diskPath() + ".meta"
	}
	return ""
}

// want is what the header of this store must say.
func (s *store) want() bitmap.Header {
	return bitmap.Header{
		Cluster: s.cfg.Cluster, Service: s.volume.Service, Volume: s.volume.Name,
		Node: s.node, Peer: s.cfg.Peer(s.node).Name, DiskID: s.id,
		Size: s.volume.Size, RegionSize: s.volume.Region, IntentLimit: s.volume.Intents,
	}
}

func (s *store) layout() (bitmap.Layout, error) {
	h := s.want()
	return h.Layout()
}

// open opens both disks exclusively. The disk must exist.
func (s *store) open() (err error) {
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	path := s.diskPath()
	info, err := os.Stat(path)
	if err != nil {
		return s.noDisk(err)
	}
	layout, err := s.layout()
	if err != nil {
		return fmt.Errorf("volume %s: %w", s.volume.Name, err)
	}
	metaPath := s.metaPath(info.Mode().IsRegular())
	need := s.volume.Size
	if metaPath == "" {
		need += layout.Bytes()
	}
	disk, err := block.Open(path, block.OpenOptions{MinSize: need})
	if err != nil {
		return fmt.Errorf("volume %s: %w", s.volume.Name, err)
	}
	s.owned = append(s.owned, disk)
	if s.id, err = block.DiskID(disk); err != nil {
		return fmt.Errorf("volume %s: identify %s: %w", s.volume.Name, path, err)
	}
	if s.data, err = block.Part(disk, 0, s.volume.Size); err != nil {
		return fmt.Errorf("volume %s: %w", s.volume.Name, err)
	}
	return s.openMeta(disk, metaPath, layout)
}

// noDisk and noMeta explain why a file cannot be looked at.
func (s *store) noDisk(err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("volume %s: %w", s.volume.Name, err)
	}
	return &control.Refusal{
		Message: fmt.Sprintf("volume %s: there is no disk %s", s.volume.Name, s.diskPath()),
		Hint:    fmt.Sprintf("make it with `twinbd create %s`", s.volume.Name),
	}
}

func (s *store) noMeta(path string, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("volume %s: %w", s.volume.Name, err)
	}
	return &control.Refusal{
		Message: fmt.Sprintf("volume %s: the disk %s has no metadata at %s", s.volume.Name, s.diskPath(), path),
		Hint:    fmt.Sprintf("`twinbd create %s` makes it; --keep adopts a disk with its data", s.volume.Name),
	}
}

func (s *store) openMeta(disk block.Disk, path string, layout bitmap.Layout) (err error) {
	if path == "" {
		s.meta, err = block.Part(disk, disk.Size()-layout.Bytes(), layout.Bytes())
		return err
	}
	if _, err := os.Stat(path); err != nil {
		return s.noMeta(path, err)
	}
	meta, err := block.Open(path, block.OpenOptions{})
	if err != nil {
		return fmt.Errorf("volume %s: metadata: %w", s.volume.Name, err)
	}
	s.owned, s.meta = append(s.owned, meta), meta
	return nil
}

// load reads the metadata and refuses what is not this volume on this node on
// this disk (rule 13).
func (s *store) load() (*bitmap.Metadata, error) {
	m, err := bitmap.Load(s.meta, s.meta.Size())
	switch {
	case errors.Is(err, bitmap.ErrVersion), errors.Is(err, bitmap.ErrNone):
		return nil, fmt.Errorf("metadata of %s: %w", s.volume.Name, err) // it says what to do
	case err != nil:
		return nil, &control.Refusal{
			Message: fmt.Sprintf("metadata of %s: %v", s.volume.Name, err),
			Hint:    fmt.Sprintf("if %s has the data, run `twinbd create --anew %s` here: this disk is then copied from there", s.want().Peer, s.volume.Name),
		}
	}
	want := s.want()
	if err := m.Header.Matches(&want); err != nil {
		return nil, fmt.Errorf("metadata of %s: %w", s.volume.Name, err)
	}
	if m.IntentsLost {
		if err := s.repair(m); err != nil {
			return nil, fmt.Errorf("repair metadata of %s: %w", s.volume.Name, err)
		}
	}
	return m, nil
}

// repair writes anew what was lost: all pages, which are all dirty now, and
// after them both copies of the intents.
func (s *store) repair(m *bitmap.Metadata) error {
	page := make([]byte, bitmap.PageSize)
	for p, ok := m.Bits.NextUnsaved(0); ok; p, ok = m.Bits.NextUnsaved(p + 1) {
		m.Bits.EncodePage(p, m.Header.Salt, page)
		if err := s.meta.WriteAt(page, m.Layout.PageOffset(p)); err != nil {
			return err
		}
	}
	if err := s.meta.Sync(); err != nil {
		return err
	}
	none := bitmap.NewIntents(m.Layout)
	image := make([]byte, m.Layout.IntentsSize())
	for range 2 {
		m.IntentsSequence++
		if err := s.meta.WriteAt(none.Encode(image, m.Header.Salt, m.IntentsSequence), m.Layout.IntentsOffset(m.IntentsSequence)); err != nil {
			return err
		}
		if err := s.meta.Sync(); err != nil {
			return err
		}
	}
	m.IntentsLost, m.Regions = false, nil
	return nil
}

// format makes the metadata of a new disk.
func (s *store) format(state bitmap.State) error {
	h := s.want()
	var salt [8]byte
	rand.Read(salt[:]) // never fails, by its documentation
	h.Salt, h.State = binary.BigEndian.Uint64(salt[:])|1, state
	writes, err := bitmap.Format(h)
	if err != nil {
		return err
	}
	for w := range writes {
		if err := s.meta.WriteAt(w.Data, w.Offset); err != nil {
			return fmt.Errorf("write metadata: %w", err)
		}
		if w.Sync {
			if err := s.meta.Sync(); err != nil {
				return fmt.Errorf("write metadata: %w", err)
			}
		}
	}
	return nil
}

func (s *store) close() {
	for _, d := range s.owned {
		d.Close()
	}
	s.owned, s.data, s.meta = nil, nil, nil
}
