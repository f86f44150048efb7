// SPDX-License-Identifier: Apache-2.0

package block

import (
	"bytes"
	"context"
	"errors"
	"fmt"
)

// Identifier is implemented by disks that can be told from other disks.
type Identifier interface {
	// ID is short printable text that stays the same as long as the disk is the
	// same one, under whatever path, and that no other disk has.
	ID() (string, error)
}

// DiskID returns the identity of a disk, to be compared with that of an earlier
// time (rule 13). For a file it is "file:" with inode and time of birth, so a
// copy is another disk; for a block device "device:" with serial number, WWN or
// UUID, and size. A clone of a whole machine has the identity of its original.
func DiskID(d Disk) (string, error) {
	i, ok := d.(Identifier)
	if !ok {
		return "", errors.New("identify disk: this kind has no identity")
	}
	return i.ID()
}

// zeroStep is how much IsZero reads at once, in bytes.
const zeroStep = 1 << 20

// IsZero reads the whole disk, but for its holes, and reports whether every
// byte is zero. progress, which may be nil, is called after each step with the
// bytes that are proven so far. The pages read are not left in the cache.
func IsZero(ctx context.Context, d Disk, progress func(done, total int64)) (bool, error) {
	mapper, _ := d.(Mapper)
	advisor, _ := d.(Advisor)
	buf := make([]byte, zeroStep)
	size := d.Size()
	for offset := int64(0); offset < size; {
		if err := context.Cause(ctx); err != nil {
			return false, err
		}
		start, end := offset, size
		if mapper != nil {
			var err error
			if start, end, err = mapper.NextData(offset); err != nil {
				return false, fmt.Errorf("prove that the disk is blank: %w", err)
			}
		}
		end = min(end, start+zeroStep)
		p := buf[:end-start]
		if err := d.ReadAt(p, start); err != nil {
			return false, fmt.Errorf("prove that the disk is blank: %w", err)
		}
		if !bytes.Equal(p, zeroes[:len(p)]) {
			return false, nil
		}
		if advisor != nil {
			advisor.Drop(start, end-start)
		}
		offset = end
		if progress != nil {
			progress(offset, size)
		}
	}
	return true, nil
}
