// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"bytes"

	"github.com/klauspost/compress/s2"

	"github.com/twinbd/twinbd/internal/block"
)

// isZero reports whether all of b is zero.
func isZero(b []byte) bool {
	for len(b) > 0 {
		n := min(len(b), len(zeroBlock))
		if !bytes.Equal(b[:n], zeroBlock[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}

var zeroBlock [64 << 10]byte

// packer compresses copies while that helps: after runs that hardly shrank it
// leaves some alone before it tries again. Whether the connection is slow
// enough, its pace says.
type packer struct {
	buffer []byte
	skip   int
}

// skipAfter is how many runs go as they are after one that did not shrink.
const skipAfter = 16

// pack returns head and the compressed data, or nil when that is not worth it.
func (p *packer) pack(head, data []byte) []byte {
	if p.skip > 0 {
		p.skip--
		return nil
	}
	if p.buffer == nil {
		p.buffer = make([]byte, 8+s2.MaxEncodedLen(maxCopyBlocks*block.Size))
	}
	copy(p.buffer, head)
	packed := s2.Encode(p.buffer[8:], data)
	if len(packed) > len(data)*7/8 {
		p.skip = skipAfter
		return nil
	}
	return p.buffer[:8+len(packed)]
}
