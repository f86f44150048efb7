// SPDX-License-Identifier: Apache-2.0

package failovertest

import (
	"errors"
	"io"
	"io/fs"
	"slices"
)

// file is an open content.
type file struct {
	disk     *Disk
	content  *content
	lifetime int
}

func (f *file) enter() error {
	if f.lifetime != f.disk.lifetime {
		return fs.ErrClosed
	}
	return f.disk.enter()
}

func (f *file) ReadAt(p []byte, offset int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.enter(); err != nil {
		return 0, err
	}
	if offset >= int64(len(f.content.seen)) {
		return 0, io.EOF
	}
	n := copy(p, f.content.seen[offset:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) WriteAt(p []byte, offset int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.enter(); err != nil {
		return 0, err
	}
	c := f.content
	c.seen = put(c.seen, p, offset)
	c.pending = append(c.pending, write{offset, slices.Clone(p)})
	return len(p), nil
}

func (f *file) Sync() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.lifetime != f.disk.lifetime {
		return fs.ErrClosed
	}
	c := f.content
	if err := f.disk.enterSync(); err != nil {
		if errors.Is(err, ErrSync) {
			c.pending = nil // believed clean from now on
		}
		return err
	}
	for _, w := range c.pending {
		c.durable = put(c.durable, w.data, w.offset)
	}
	c.pending = nil
	return nil
}

func (f *file) Close() error { return nil }

func put(b, data []byte, offset int64) []byte {
	if need := int(offset) + len(data); need > len(b) {
		b = append(b, make([]byte, need-len(b))...)
	}
	copy(b[offset:], data)
	return b
}
