// SPDX-License-Identifier: Apache-2.0

package nbdtest

import (
	"bytes"

	"github.com/twinbd/twinbd/internal/block"
)

// Engine carries requests out on memory. It is used by one thread at a time;
// a Server sees to that for its own.
type Engine struct {
	Data []byte

	// Hold keeps requests back until Release.
	Hold bool

	// Fail, if set, may name the outcome of a request before it is carried out.
	Fail func(*block.Request) block.Status

	held    []*block.Request
	flushes int
}

// NewEngine returns an engine on size bytes of zeroes.
func NewEngine(size int) *Engine { return &Engine{Data: make([]byte, size)} }

// Submit carries out the requests of a batch, or holds them, and empties it.
func (e *Engine) Submit(b *block.Batch) {
	for i, r := range b.Requests {
		b.Requests[i] = nil
		if e.Hold {
			e.held = append(e.held, r)
			continue
		}
		e.finish(r)
	}
	b.Requests = b.Requests[:0]
}

// Held are the requests that are held back, oldest first.
func (e *Engine) Held() []*block.Request { return e.held }

// Flushes is how many FLUSH requests and FUA flags were honoured.
func (e *Engine) Flushes() int { return e.flushes }

// Release completes the i-th of the held requests.
func (e *Engine) Release(i int) {
	r := e.held[i]
	e.held = append(e.held[:i], e.held[i+1:]...)
	e.finish(r)
}

// finish carries a request out and completes it.
func (e *Engine) finish(r *block.Request) {
	r.Status = block.OK
	if e.Fail != nil {
		r.Status = e.Fail(r)
	}
	if r.Status == block.OK {
		r.Status = e.do(r)
	}
	r.Owner.Complete(r)
}

func (e *Engine) do(r *block.Request) block.Status {
	if r.Op == block.Flush || r.Flags&block.FUA != 0 {
		e.flushes++
	}
	if r.Op == block.Flush {
		return block.OK
	}
	if r.Offset < 0 || r.Length <= 0 || r.Offset > int64(len(e.Data)) || r.Length > int64(len(e.Data))-r.Offset {
		return block.IOError // the session should never have let it through
	}
	span := e.Data[r.Offset : r.Offset+r.Length]
	switch r.Op {
	case block.Read:
		copy(r.Data, span)
	case block.Write:
		copy(span, r.Data)
	case block.Trim, block.WriteZeroes:
		clear(span)
	case block.Cache:
	case block.BlockStatus:
		e.status(r)
	default:
		return block.Invalid
	}
	return block.OK
}

// status fills in what is asked. Blocks of zeroes count as holes, and blocks
// whose first byte is odd as dirty, so that both contexts have something to say.
func (e *Engine) status(r *block.Request) {
	if r.Contexts&block.ContextAllocation != 0 {
		r.Extents[0] = e.extents(r, r.Extents[0], func(b []byte) uint32 {
			if len(bytes.TrimLeft(b, "\x00")) == 0 {
				return block.ExtentHole | block.ExtentZero
			}
			return 0
		})
	}
	if r.Contexts&block.ContextDirty != 0 {
		r.Extents[1] = e.extents(r, r.Extents[1], func(b []byte) uint32 {
			return uint32(b[0]&1) * block.ExtentDirty
		})
	}
}

// extents appends runs of blocks of the same status, as far as the list's
// capacity goes.
func (e *Engine) extents(r *block.Request, list []block.Extent, status func([]byte) uint32) []block.Extent {
	for at, end := r.Offset, r.Offset+r.Length; at < end; {
		start := at / block.Size * block.Size
		next := min(start+block.Size, int64(len(e.Data)))
		flags, length := status(e.Data[start:next]), uint32(min(next, end)-at)
		switch n := len(list); {
		case n > 0 && list[n-1].Flags == flags:
			list[n-1].Length += length
		case n == cap(list):
			return list
		default:
			list = append(list, block.Extent{Length: length, Flags: flags})
		}
		at += int64(length)
	}
	return list
}
