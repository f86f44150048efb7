// SPDX-License-Identifier: Apache-2.0

package node

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/internal/block"
)

// saveSplit makes a file of the blocks, whole and durable, or none.
func saveSplit(path string, f *SplitFile, runs []bitmap.Run, read func([]byte, int64) error, progress func(done, total int64)) (err error) {
	file, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(path + ".new")
		}
	}()
	err = writeSplit(file, f, runs, read, progress)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err = os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncDirectory(filepath.Dir(path))
}

// parseGeneration reads what Generation.Hex wrote.
func parseGeneration(text string) (g bitmap.Generation, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(g) {
		return g, fmt.Errorf("%.40q names no generation", text)
	}
	copy(g[:], b)
	return g, nil
}

// listedRuns is how many pieces are listed before they are only counted.
const listedRuns = 8

// InspectSplit prints what a saved file holds, and checks all of it.
func InspectSplit(w io.Writer, path string) error {
	return readSplit(path, func(s *splitReader) error {
		line := func(label, format string, args ...any) {
			fmt.Fprintf(w, "%-12s %s\n", label, fmt.Sprintf(format, args...))
		}
		line("volume", "%s of service %s, cluster %s", s.Volume, s.Service, s.Cluster)
		line("saved", "%s on %s, whose data was given up for that of %s", s.Time.Format("2006-01-02 15:04:05 MST"), s.Node, s.Keeper)
		line("generation", "%s, parted from %s; kept: %s", s.Generation, s.Base, s.KeeperGeneration)
		line("volume id", "%x", s.VolumeID)
		line("size", "%d bytes", s.Size)
		line("holds", "%d blocks, %d bytes", s.Blocks, s.Blocks*block.Size)
		for i := 0; ; i++ {
			p, err := s.piece()
			switch {
			case errors.Is(err, io.EOF):
				if i > listedRuns {
					line("", "and %d more", i-listedRuns)
				}
				line("checksum", "right")
				return nil
			case err != nil:
				return err
			case i >= listedRuns:
				continue
			}
			offset, length := span(p.Run, s.Size)
			kind := "data"
			if p.data == nil {
				kind = "zeroes"
			}
			line("", "bytes %d to %d: %s", offset, offset+length, kind)
		}
	})
}

// ExtractSplit writes the blocks of a saved file to where they were in the volume,
// into an image that must be there: a copy of the volume as it was, or an empty
// file of its size.
func ExtractSplit(path, image string) error {
	// All of it is checked before any of it is written.
	if err := readSplit(path, func(s *splitReader) error { return s.each(func(piece) error { return nil }) }); err != nil {
		return err
	}
	out, err := os.OpenFile(image, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	err = readSplit(path, func(s *splitReader) error {
		if size, err := out.Seek(0, io.SeekEnd); err != nil || size < s.Size {
			return errors.Join(err, fmt.Errorf("%s has %d bytes, and the volume %d; hint: `truncate -s %d %s`", image, size, s.Size, s.Size, image))
		}
		zeroes := make([]byte, maxPiece*block.Size)
		return s.each(func(p piece) error {
			offset, length := span(p.Run, s.Size)
			data := p.data
			if data == nil {
				data = zeroes[:length]
			}
			_, err := out.WriteAt(data, offset)
			return err
		})
	})
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

func (s *splitReader) each(f func(piece) error) error {
	for {
		p, err := s.piece()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = f(p)
		}
		if err != nil {
			return err
		}
	}
}

func readSplit(path string, f func(*splitReader) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	s, err := newSplitReader(file)
	if err == nil {
		err = f(s)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
