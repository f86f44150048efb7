// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"bytes"

	"github.com/twinbd/twinbd/internal/block"
)

// A long READ of much zeroes goes out as chunks of data and of holes, so that
// copying a sparse volume costs neither network nor the client's page cache.
// No byte of data moves: a hole leaves room in the answer's own memory for the
// headers that are needed around it.
//
//	answer    |hdr|  data  |·········zeroes·········|  data  |····zeroes····|
//	sent      |hdr|  data  |               |hole|hdr|  data  |hole|
//	pieces     ╰────────────╯               ╰─────────────────────╯

const (
	sparseLength = 64 << 10   // bytes; shorter reads go out in one piece
	minHole      = 32 << 10   // bytes; shorter runs of zeroes are sent as data
	holeUnit     = block.Size // holes begin and end at multiples of it in the volume
)

var zeroes [holeUnit]byte

// putSparse queues the reply to a READ as chunks.
func (s *Session) putSparse(r *request) {
	c := chunker{out: &s.out, r: r, length: int(r.Length)}
	first := int(-r.Offset & (holeUnit - 1)) // of the whole units, as an index of Data
	for i := first; i+holeUnit <= c.length; {
		if !bytes.Equal(r.Data[i:i+holeUnit], zeroes[:]) {
			i += holeUnit
			continue
		}
		end := i + holeUnit
		for end+holeUnit <= c.length && bytes.Equal(r.Data[end:end+holeUnit], zeroes[:]) {
			end += holeUnit
		}
		if end-i >= minHole {
			c.data(i)
			c.hole(i, end)
		}
		i = end
	}
	c.data(c.length)
	s.out.put(r.answer[c.from:c.to], r)
}

// chunker writes chunks into an answer. Indices of data are those of Data,
// which begins dataHeader bytes into the answer; a chunk of data from index i
// thus has its header at answer[i:].
type chunker struct {
	out      *outbox
	r        *request
	length   int // of Data
	done     int // of Data: what lies before is in a chunk
	from, to int // of answer: chunks that are written and not queued
}

// data writes what lies between done and end as a chunk of data.
func (c *chunker) data(end int) {
	if c.done == end {
		return
	}
	putDataChunk(c.r.answer[c.done:], c.last(end), c.r.Cookie, c.r.Offset+int64(c.done), end-c.done)
	if c.from == c.to {
		c.from = c.done
	}
	c.done, c.to = end, dataHeader+end
}

// hole writes the zeroes from i to end as a hole: at the end of their memory,
// where the next chunk's header follows, or after the last data.
func (c *chunker) hole(i, end int) {
	at := c.to
	if end < c.length {
		c.queue()
		at = end - holeLength
		c.from = at
	}
	putHoleChunk(c.r.answer[at:], c.last(end), c.r.Cookie, c.r.Offset+int64(i), end-i)
	c.done, c.to = end, at+holeLength
}

// queue sends off what is written.
func (c *chunker) queue() {
	if c.from < c.to {
		c.out.put(c.r.answer[c.from:c.to], nil)
	}
}

func (c *chunker) last(end int) uint16 {
	if end == c.length {
		return chunkDone
	}
	return 0
}
