// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/internal/block"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files; never for a format that was released")

func noProgress(int64, int64) {}

// memory reads from a volume in memory.
func memory(volume []byte) func([]byte, int64) error {
	return func(p []byte, offset int64) error {
		copy(p, volume[offset:])
		return nil
	}
}

func sampleSplit() SplitFile {
	return SplitFile{
		Cluster: "lab", Service: "pg", Volume: "data", Node: "alpha", Keeper: "beta", Time: time.Unix(1900000000, 5).UTC(),
		Size: 3 * block.Size, VolumeID: [16]byte{1}, Generation: bitmap.Generation{2}, Base: bitmap.Generation{3}, KeeperGeneration: bitmap.Generation{4},
	}
}

// The form is what FORMAT says: one block of zeroes, so that the example is short.
func TestSplitFileGolden(t *testing.T) {
	f := sampleSplit()
	var out bytes.Buffer
	if err := writeSplit(&out, &f, []bitmap.Run{{First: 1, Count: 2}}, memory(make([]byte, f.Size)), noProgress); err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "split-v1.hex")
	got := hex.Dump(out.Bytes())
	if *rewrite {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// What was written is read back, whatever the runs; and with any byte changed or
// cut off it is refused.
func TestSplitFileIsReadBackOrRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		blocks := rapid.Int64Range(1, 40).Draw(t, "blocks")
		f := sampleSplit()
		f.Size = blocks*block.Size - rapid.Int64Range(0, 1).Draw(t, "short")*100
		volume := make([]byte, f.Size)
		bits := bitmap.NewBits(f.Size)
		for b := range blocks {
			if rapid.Bool().Draw(t, "changed") {
				bits.Set(b, 1)
				if rapid.Bool().Draw(t, "data") {
					volume[b*block.Size] = byte(b + 1)
				}
			}
		}
		var runs []bitmap.Run
		for at := int64(0); ; {
			first, count, ok := bits.Next(at, blocks)
			if !ok {
				break
			}
			runs = append(runs, bitmap.Run{First: first, Count: count})
			at = first + count
		}
		var out bytes.Buffer
		if err := writeSplit(&out, &f, runs, memory(volume), noProgress); err != nil {
			t.Fatal(err)
		}
		head, back, err := unpack(out.Bytes())
		if err != nil || *head != f || !bytes.Equal(back, volume) {
			t.Fatalf("read back: %v, %+v", err, head)
		}
		at := rapid.IntRange(0, out.Len()-1).Draw(t, "at")
		changed := bytes.Clone(out.Bytes())
		changed[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if _, _, err := unpack(changed); err == nil {
			t.Fatalf("a file with another byte %d is believed", at)
		}
		if _, _, err := unpack(out.Bytes()[:at]); err == nil {
			t.Fatalf("a file cut at %d is believed", at)
		}
		if _, _, err := unpack(append(out.Bytes(), 0)); err == nil {
			t.Fatal("a file with more behind it is believed")
		}
	})
}

// unpack reads a file into an empty volume.
func unpack(b []byte) (*SplitFile, []byte, error) {
	s, err := newSplitReader(bytes.NewReader(b))
	if err != nil {
		return nil, nil, err
	}
	volume := make([]byte, min(s.Size, 1<<20))
	err = s.each(func(p piece) error {
		offset, length := span(p.Run, s.Size)
		if offset+length > int64(len(volume)) {
			return errors.New("outside")
		}
		copy(volume[offset:offset+length], p.data)
		return nil
	})
	return &s.SplitFile, volume, err
}

func FuzzSplitFile(f *testing.F) {
	sample := sampleSplit()
	var out bytes.Buffer
	volume := make([]byte, sample.Size)
	volume[block.Size] = 1
	if err := writeSplit(&out, &sample, []bitmap.Run{{First: 0, Count: 3}}, memory(volume), noProgress); err != nil {
		f.Fatal(err)
	}
	f.Add(out.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := newSplitReader(bytes.NewReader(b))
		if err != nil {
			return
		}
		blocks := int64(0)
		err = s.each(func(p piece) error {
			blocks += p.Count
			if offset, length := span(p.Run, s.Size); offset+length > s.Size || p.data != nil && int64(len(p.data)) != length {
				t.Fatalf("piece %v of %d bytes in a volume of %d", p.Run, len(p.data), s.Size)
			}
			return nil
		})
		if err == nil && blocks != s.Blocks {
			t.Fatalf("%d blocks, the head says %d", blocks, s.Blocks)
		}
	})
}

// A file that could not be written whole is not there.
func TestSaveSplitLeavesNothingHalf(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "split")
	f := sampleSplit()
	broken := func([]byte, int64) error { return io.ErrUnexpectedEOF }
	err := saveSplit(path, &f, []bitmap.Run{{First: 0, Count: 1}}, broken, noProgress)
	if err == nil || !strings.Contains(err.Error(), "read the disk at byte 0") {
		t.Errorf("got %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A foreign file, and an image that is too small, are refused before anything is
// written.
func TestExtractSplitRefuses(t *testing.T) {
	dir := t.TempDir()
	saved, image, foreign := filepath.Join(dir, "saved"), filepath.Join(dir, "image"), filepath.Join(dir, "foreign")
	f := sampleSplit()
	if err := saveSplit(saved, &f, []bitmap.Run{{First: 0, Count: 1}}, memory(bytes.Repeat([]byte{1}, int(f.Size))), noProgress); err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string][]byte{image: make([]byte, block.Size), foreign: []byte("a letter")} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for from, want := range map[string]string{saved: "hint: `truncate -s 12288", foreign: "no file that `twinbd resolve`", dir + "/none": "no such file"} {
		if err := ExtractSplit(from, image); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", from, err, want)
		}
	}
	if got, err := os.ReadFile(image); err != nil || !bytes.Equal(got, make([]byte, block.Size)) {
		t.Errorf("the image was written to: %v", err)
	}
}
