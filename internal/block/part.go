// SPDX-License-Identifier: Apache-2.0

package block

import "fmt"

// Part returns a view of length bytes of d from start on: a device that holds
// a volume's data and, behind it, its metadata is used as two parts. Closing a
// part does nothing; closing d is its owner's. Sync of one part syncs all of d.
// The optional skills of d are passed on.
func Part(d Disk, start, length int64) (Disk, error) {
	if start < 0 || length < 0 || start > d.Size()-length {
		return nil, fmt.Errorf("part of %d bytes at %d does not fit a disk of %d bytes", length, start, d.Size())
	}
	return &part{disk: d, start: start, length: length}, nil
}

type part struct {
	disk          Disk
	start, length int64
}

func (p *part) Size() int64  { return p.length }
func (p *part) Sync() error  { return p.disk.Sync() }
func (p *part) Close() error { return nil }

// within refuses what would reach into another part.
func (p *part) within(offset, length int64) error {
	if offset < 0 || length < 0 || offset > p.length-length {
		return fmt.Errorf("%d bytes at %d of a part of %d bytes: %w", length, offset, p.length, Invalid)
	}
	return nil
}

func (p *part) ReadAt(b []byte, offset int64) error {
	if err := p.within(offset, int64(len(b))); err != nil {
		return err
	}
	return p.disk.ReadAt(b, p.start+offset)
}

func (p *part) WriteAt(b []byte, offset int64) error {
	if err := p.within(offset, int64(len(b))); err != nil {
		return err
	}
	return p.disk.WriteAt(b, p.start+offset)
}

func (p *part) Zero(offset, length int64, punch bool) error {
	if err := p.within(offset, length); err != nil {
		return err
	}
	return p.disk.Zero(p.start+offset, length, punch)
}

// TryReadAt is that of the whole disk, or always would block.
func (p *part) TryReadAt(b []byte, offset int64) error {
	t, ok := p.disk.(TryReader)
	if !ok {
		return ErrWouldBlock
	}
	if err := p.within(offset, int64(len(b))); err != nil {
		return err
	}
	return t.TryReadAt(b, p.start+offset)
}

// NextData is that of the whole disk, cut to the part; without a map everything
// is data.
func (p *part) NextData(offset int64) (start, end int64, err error) {
	m, ok := p.disk.(Mapper)
	if !ok {
		return offset, p.length, nil
	}
	if start, end, err = m.NextData(p.start + offset); err != nil {
		return 0, 0, err
	}
	return min(start-p.start, p.length), min(end-p.start, p.length), nil
}

// firstData implements dataFinder.
func (p *part) firstData(offset int64) (int64, error) {
	m, ok := p.disk.(Mapper)
	if !ok {
		return offset, nil
	}
	start, err := firstData(m, p.start+offset)
	if err != nil {
		return 0, err
	}
	return min(start-p.start, p.length), nil
}

func (p *part) WillNeed(offset, length int64) {
	if a, ok := p.disk.(Advisor); ok {
		a.WillNeed(p.start+offset, length)
	}
}

func (p *part) Drop(offset, length int64) {
	if a, ok := p.disk.(Advisor); ok {
		a.Drop(p.start+offset, length)
	}
}

func (p *part) StartWriteback(offset, length int64) {
	if a, ok := p.disk.(Advisor); ok {
		a.StartWriteback(p.start+offset, length)
	}
}

func (p *part) FastZero() bool {
	f, ok := p.disk.(FastZeroer)
	return ok && f.FastZero()
}
