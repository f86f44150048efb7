// SPDX-License-Identifier: Apache-2.0

package blocktest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/twinbd/twinbd/internal/block"
)

// Contract checks that a disk keeps the promises of block.Disk and of those
// optional interfaces that it has. open returns a disk of at least 1 MiB that
// reads as zeroes; Contract closes it.
func Contract(t *testing.T, open func(testing.TB) block.Disk) {
	run := func(name string, test func(*testing.T, block.Disk)) {
		t.Run(name, func(t *testing.T) {
			d := open(t)
			test(t, d)
			if err := d.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
	run("beyond the end", refusesBeyondEnd)
	run("like plain memory", behavesLikeMemory)
	run("holes", mapsHoles)
	run("concurrent", bearsOverlappingCalls)
}

// refusesBeyondEnd: nothing outside the disk is read or written, and a refused
// call leaves the disk as it was.
func refusesBeyondEnd(t *testing.T, d block.Disk) {
	size := d.Size()
	buf := bytes.Repeat([]byte{0xff}, 8192)
	for _, r := range []struct{ offset, length int64 }{
		{-1, 1}, {-4096, 8192}, {size, 1}, {size - 1, 2}, {size - 4096, 8192}, {size + 1, 0}, {1<<63 - 1, 4096},
	} {
		at := fmt.Sprintf("%d bytes at %d of %d", r.length, r.offset, size)
		check := func(call string, err error) {
			if block.StatusOf(err) != block.Invalid {
				t.Errorf("%s %s: %v, not %v", call, at, err, block.Invalid)
			}
		}
		p := buf[:r.length]
		check("write", d.WriteAt(p, r.offset))
		check("zero", d.Zero(r.offset, r.length, false))
		check("trim", d.Zero(r.offset, r.length, true))
		check("read", d.ReadAt(make([]byte, r.length), r.offset))
		if v, ok := d.(block.Vectored); ok {
			check("write vector", v.WriteVectorAt([][]byte{p[:len(p)/2], p[len(p)/2:]}, r.offset))
		}
		if v, ok := d.(block.TryReader); ok {
			check("try to read", v.TryReadAt(make([]byte, r.length), r.offset))
		}
	}
	if d.Size() != size {
		t.Errorf("the size became %d", d.Size())
	}
	RequireEqual(t, d, NewMemory(size))
}

// behavesLikeMemory does random things to the disk and to a slice of bytes.
func behavesLikeMemory(t *testing.T, d block.Disk) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	model := make([]byte, d.Size())
	for step := range 400 {
		offset, length := randomRange(rng, d.Size())
		what, err := randomChange(rng, d, model, offset, length)
		if err != nil {
			t.Fatalf("step %d: %s %d bytes at %d: %v", step, what, length, offset, err)
		}
		offset, length = randomRange(rng, d.Size())
		got := make([]byte, length)
		if err := randomRead(rng, d, got, offset); err != nil {
			t.Fatalf("step %d: read %d bytes at %d: %v", step, length, offset, err)
		}
		if want := model[offset : offset+length]; !bytes.Equal(got, want) {
			at := firstDifference(got, want)
			t.Fatalf("step %d: read %d bytes at %d: byte %d is %#x, not %#x", step, length, offset, at, got[at], want[at])
		}
	}
	whole := make([]byte, d.Size())
	if err := d.ReadAt(whole, 0); err != nil || !bytes.Equal(whole, model) {
		t.Fatalf("at the end: the content differs at %d, %v", firstDifference(whole, model), err)
	}
}

// randomRange is any range, often aligned, often short, sometimes at the end.
func randomRange(rng *rand.Rand, size int64) (offset, length int64) {
	length = rng.Int64N(1 << rng.IntN(18))
	offset = rng.Int64N(size - length + 1)
	switch rng.IntN(4) {
	case 0:
		offset -= offset % block.Size
	case 1:
		offset -= offset % block.Size
		length -= length % block.Size
	case 2:
		offset = size - length
	}
	return offset, length
}

func randomChange(rng *rand.Rand, d block.Disk, model []byte, offset, length int64) (string, error) {
	part := model[offset : offset+length]
	switch rng.IntN(8) {
	case 0:
		clear(part)
		return "zero", d.Zero(offset, length, false)
	case 1:
		clear(part)
		return "trim", d.Zero(offset, length, true)
	case 2:
		return "sync before", d.Sync()
	case 3, 4:
		if v, ok := d.(block.Vectored); ok {
			fill(rng, part)
			return "write vector", v.WriteVectorAt(cut(rng, bytes.Clone(part)), offset)
		}
	}
	fill(rng, part)
	return "write", d.WriteAt(bytes.Clone(part), offset)
}

func randomRead(rng *rand.Rand, d block.Disk, p []byte, offset int64) error {
	if v, ok := d.(block.TryReader); ok && rng.IntN(2) == 0 {
		if err := v.TryReadAt(p, offset); !errors.Is(err, block.ErrWouldBlock) {
			return err
		}
	}
	return d.ReadAt(p, offset)
}

func fill(rng *rand.Rand, p []byte) {
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
}

// cut divides p into up to 40 pieces, some of them empty.
func cut(rng *rand.Rand, p []byte) (pieces [][]byte) {
	for range rng.IntN(40) {
		n := rng.IntN(min(len(p), 8192) + 1)
		pieces = append(pieces, p[:n])
		p = p[n:]
	}
	return append(pieces, p)
}

// mapsHoles: whatever NextData calls a hole reads as zeroes, and it gets to the
// end.
func mapsHoles(t *testing.T, d block.Disk) {
	m, ok := d.(block.Mapper)
	if !ok {
		t.Skip("the disk does not know its holes")
	}
	if err := d.WriteAt([]byte("island"), 300<<10); err != nil {
		t.Fatal(err)
	}
	if err := d.WriteAt([]byte("coast"), d.Size()-5); err != nil {
		t.Fatal(err)
	}
	if err := d.Zero(600<<10, 64<<10, true); err != nil {
		t.Fatal(err)
	}
	seen := make([]byte, d.Size()) // what one sees who reads data only
	for offset := int64(0); offset < d.Size(); {
		start, end, err := m.NextData(offset)
		if err != nil {
			t.Fatalf("next data at %d: %v", offset, err)
		}
		if start < offset || start > end || end > d.Size() || start == end && start != d.Size() {
			t.Fatalf("next data at %d of %d: %d to %d", offset, d.Size(), start, end)
		}
		if err := d.ReadAt(seen[start:end], start); err != nil {
			t.Fatal(err)
		}
		offset = end
	}
	whole := make([]byte, d.Size())
	if err := d.ReadAt(whole, 0); err != nil {
		t.Fatal(err)
	}
	if at := firstDifference(whole, seen); at >= 0 {
		t.Errorf("byte %d is in a hole and not zero", at)
	}
	if start, end, err := m.NextData(d.Size()); err != nil || start != d.Size() || end != d.Size() {
		t.Errorf("next data at the end, %d: %d to %d, %v", d.Size(), start, end, err)
	}
}

// bearsOverlappingCalls is for the race detector as much as for the content.
func bearsOverlappingCalls(t *testing.T, d block.Disk) {
	const workers, stride = 8, 128 << 10
	var group sync.WaitGroup
	for w := range int64(workers) {
		group.Go(func() {
			p, got := bytes.Repeat([]byte{byte(w + 1)}, stride/4), make([]byte, stride/4)
			for round := range int64(4) {
				offset := w*stride + round*stride/4
				err := errors.Join(d.WriteAt(p, offset), d.Sync(), d.ReadAt(got, offset))
				if err != nil || !bytes.Equal(p, got) {
					t.Errorf("worker %d, round %d: read back other bytes, %v", w, round, err)
				}
				if err := d.Zero(offset, stride/8, round%2 == 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
}
