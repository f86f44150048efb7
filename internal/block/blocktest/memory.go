// SPDX-License-Identifier: Apache-2.0

package blocktest

import (
	"bytes"
	"fmt"
	"sync"

	"github.com/twinbd/twinbd/internal/block"
)

// Memory is a disk in memory. It never fails, forgets nothing but the process
// itself, and allocates nothing per call, so that benchmarks may use it. Calls
// may overlap.
type Memory struct {
	Name string // what ID returns; set it before the disk is shared

	mu   sync.RWMutex
	data []byte
}

// NewMemory returns a disk of size bytes that reads as zeroes.
func NewMemory(size int64) *Memory {
	return &Memory{Name: "memory", data: make([]byte, size)}
}

// ID implements block.Identifier.
func (m *Memory) ID() (string, error) { return m.Name, nil }

// Size implements block.Disk.
func (m *Memory) Size() int64 { return int64(len(m.data)) }

// ReadAt implements block.Disk.
func (m *Memory) ReadAt(p []byte, offset int64) error {
	if err := checkRange(m.Size(), offset, int64(len(p))); err != nil {
		return err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	copy(p, m.data[offset:])
	return nil
}

// TryReadAt implements block.TryReader; it never would block.
func (m *Memory) TryReadAt(p []byte, offset int64) error { return m.ReadAt(p, offset) }

// WriteAt implements block.Disk.
func (m *Memory) WriteAt(p []byte, offset int64) error {
	if err := checkRange(m.Size(), offset, int64(len(p))); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(m.data[offset:], p)
	return nil
}

// WriteVectorAt implements block.Vectored.
func (m *Memory) WriteVectorAt(buffers [][]byte, offset int64) error {
	if err := checkRange(m.Size(), offset, vectorLength(buffers)); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range buffers {
		offset += int64(copy(m.data[offset:], p))
	}
	return nil
}

// Zero implements block.Disk.
func (m *Memory) Zero(offset, length int64, _ bool) error {
	if err := checkRange(m.Size(), offset, length); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.data[offset : offset+length])
	return nil
}

// Sync implements block.Disk.
func (m *Memory) Sync() error { return nil }

// Close implements block.Disk; the content stays readable.
func (m *Memory) Close() error { return nil }

// NextData implements block.Mapper: blocks of zeroes are holes.
func (m *Memory) NextData(offset int64) (start, end int64, err error) {
	if err := checkRange(m.Size(), offset, 0); err != nil {
		return 0, 0, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	start, end = nextData(m.data, offset)
	return start, end, nil
}

// FastZero implements block.FastZeroer.
func (m *Memory) FastZero() bool { return true }

// Snapshot returns a copy of the content.
func (m *Memory) Snapshot() []byte {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return bytes.Clone(m.data)
}

// checkRange refuses what does not lie within a disk of size bytes.
func checkRange(size, offset, length int64) error {
	if offset < 0 || length < 0 || offset > size-length {
		return fmt.Errorf("%d bytes at %d of a disk of %d: %w", length, offset, size, block.Invalid)
	}
	return nil
}

func vectorLength(buffers [][]byte) (n int64) {
	for _, p := range buffers {
		n += int64(len(p))
	}
	return n
}

var zeroBlock [block.Size]byte

// nextData finds the first run of blocks at or after offset that are not all
// zero, as the range of bytes that NextData promises.
func nextData(data []byte, offset int64) (start, end int64) {
	size := int64(len(data))
	isZero := func(at int64) bool {
		b := data[at:min(at-at%block.Size+block.Size, size)]
		return bytes.Equal(b, zeroBlock[:len(b)])
	}
	next := func(at int64) int64 { return min(at-at%block.Size+block.Size, size) }

	for start = offset; start < size && isZero(start); {
		start = next(start)
	}
	for end = start; end < size && !isZero(end); {
		end = next(end)
	}
	return start, end
}
