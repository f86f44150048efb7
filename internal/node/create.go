// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/internal/config"
)

// CreateOptions says how a disk is made.
type CreateOptions struct {
	// Blank: the disk reads as zeroes, proven by having just been made or by
	// reading it, so that two blank disks need no first resync.
	Blank bool

	// Keep adopts a disk with the data on it.
	Keep bool

	// Anew replaces the metadata of a disk that was this volume's before. What
	// the disk holds is no longer believed.
	Anew bool
}

// Create makes a node's disk of a volume, and its metadata. It overwrites
// nothing that somebody may want: a disk with a foreign signature, or metadata
// that is there, is refused. progress may be nil.
func Create(ctx context.Context, cfg *config.Config, v *config.Volume, node string, o CreateOptions, progress func(done, total int64)) (err error) {
	s := &store{cfg: cfg, volume: v, node: node}
	made, err := s.makeDisk()
	if err != nil {
		return err
	}
	var madeMeta string
	defer func() {
		s.close()
		if err == nil {
			return
		}
		// Nothing half made is left behind.
		if madeMeta != "" {
			os.Remove(madeMeta)
		}
		if made {
			os.Remove(s.diskPath())
		}
	}()
	if madeMeta, err = s.makeMeta(made, o); err != nil {
		return err
	}
	if err := s.open(); err != nil {
		return err
	}
	state, err := s.judge(ctx, made, o, progress)
	if err != nil {
		return err
	}
	if err := s.format(state); err != nil {
		return fmt.Errorf("volume %s: %w", v.Name, err)
	}
	return nil
}

// makeDisk makes the file of a volume when nothing is there.
func (s *store) makeDisk() (made bool, err error) {
	path := s.diskPath()
	if _, err := os.Stat(path); err == nil {
		return false, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("volume %s: %w", s.volume.Name, err)
	}
	if isDeviceName(path) {
		return false, &control.Refusal{
			Message: fmt.Sprintf("volume %s: there is no device %s", s.volume.Name, path),
			Hint:    "check the path in the configuration; /dev/disk/by-id names do not change",
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return false, fmt.Errorf("volume %s: %w", s.volume.Name, err)
	}
	if err := block.CreateFile(path, s.volume.Size, s.volume.Thin); err != nil {
		return false, fmt.Errorf("volume %s: %w", s.volume.Name, err)
	}
	return true, nil
}

// isDeviceName reports whether a path names a device, so that a missing one is
// not made as a file. Below /dev there are also file systems, such as /dev/shm.
func isDeviceName(path string) bool {
	dir := filepath.Dir(path)
	return dir == "/dev" || strings.HasPrefix(dir, "/dev/disk") || strings.HasPrefix(dir, "/dev/mapper")
}

// makeMeta makes the metadata file where there is to be one, and returns its
// path if it did.
func (s *store) makeMeta(madeDisk bool, o CreateOptions) (string, error) {
	info, err := os.Stat(s.diskPath())
	if err != nil {
		return "", fmt.Errorf("volume %s: %w", s.volume.Name, err)
	}
	path := s.metaPath(info.Mode().IsRegular())
	if path == "" {
		return "", nil
	}
	if info, err := os.Stat(path); err == nil {
		switch {
		case !info.Mode().IsRegular():
			return "", nil // a device of its own; judge looks at it
		case madeDisk || o.Anew:
			// The disk is new: what this file says is of one that is gone.
			if err := os.Remove(path); err != nil {
				return "", fmt.Errorf("volume %s: replace metadata: %w", s.volume.Name, err)
			}
		default:
			return "", &control.Refusal{
				Message: fmt.Sprintf("volume %s: %s has metadata already, in %s", s.volume.Name, s.diskPath(), path),
				Hint:    "look at it with `twinbd inspect`; --anew replaces it, and the disk is then copied from the peer",
			}
		}
	}
	layout, err := s.layout()
	if err != nil {
		return "", fmt.Errorf("volume %s: %w", s.volume.Name, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", fmt.Errorf("volume %s: %w", s.volume.Name, err)
	}
	if err := block.CreateFile(path, layout.Bytes(), false); err != nil {
		return "", fmt.Errorf("volume %s: metadata: %w", s.volume.Name, err)
	}
	return path, nil
}

// judge decides what the disk's content is worth, and refuses to take a disk
// that is somebody else's.
func (s *store) judge(ctx context.Context, made bool, o CreateOptions, progress func(done, total int64)) (bitmap.State, error) {
	if _, err := bitmap.Load(s.meta, s.meta.Size()); !errors.Is(err, bitmap.ErrNone) && !o.Anew {
		return 0, &control.Refusal{
			Message: fmt.Sprintf("volume %s: %s has metadata already", s.volume.Name, s.diskPath()),
			Hint:    "look at it with `twinbd inspect`; --anew replaces it, and the disk is then copied from the peer",
		}
	}
	if made {
		return bitmap.Blank, nil // a new file reads as zeroes: proven by having been made here
	}
	if !o.Keep && !o.Anew {
		what, err := block.Signature(s.data)
		if err != nil {
			return 0, fmt.Errorf("volume %s: %w", s.volume.Name, err)
		}
		if what != "" {
			return 0, &control.Refusal{
				Message: fmt.Sprintf("volume %s: %s holds %s", s.volume.Name, s.diskPath(), what),
				Hint:    "--keep adopts it with its data; else wipe it first",
			}
		}
	}
	if o.Blank {
		zero, err := block.IsZero(ctx, s.data, progress)
		if err != nil {
			return 0, fmt.Errorf("volume %s: %w", s.volume.Name, err)
		}
		if !zero {
			return 0, &control.Refusal{
				Message: fmt.Sprintf("volume %s: %s does not read as zeroes", s.volume.Name, s.diskPath()),
				Hint:    "leave --blank out: the first resync then copies every block",
			}
		}
		return bitmap.Blank, nil
	}
	return bitmap.Fresh, nil
}

// Inspect reads the metadata of a volume on a node, also while the node runs: it
// takes no lock, and metadata is such that a write under way does not confuse a
// reader.
func Inspect(cfg *config.Config, v *config.Volume, node string) (*bitmap.Metadata, error) {
	s := &store{cfg: cfg, volume: v, node: node}
	path := s.diskPath()
	info, err := os.Stat(path)
	if err != nil {
		return nil, s.noDisk(err)
	}
	metaPath := s.metaPath(info.Mode().IsRegular())
	from := metaPath
	if from == "" {
		from = path
	}
	f, err := os.Open(from)
	if err != nil {
		return nil, s.noMeta(from, err)
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd) // a device's size too
	if err != nil {
		return nil, fmt.Errorf("volume %s: %w", v.Name, err)
	}
	area := section{f, 0}
	if metaPath == "" {
		layout, err := s.layout()
		if err != nil {
			return nil, fmt.Errorf("volume %s: %w", v.Name, err)
		}
		area.start, size = size-layout.Bytes(), layout.Bytes()
	}
	m, err := bitmap.Load(area, size)
	if err != nil {
		return nil, fmt.Errorf("metadata of %s: %w", v.Name, err)
	}
	return m, nil
}

// section is a part of a file, as a reader of metadata wants it.
type section struct {
	file  *os.File
	start int64
}

func (s section) ReadAt(p []byte, offset int64) error {
	_, err := s.file.ReadAt(p, s.start+offset)
	return err
}
