// SPDX-License-Identifier: Apache-2.0

package nbd

import "github.com/twinbd/twinbd/internal/block"

// problem is why a request is refused: the error value, and for clients that
// take structured replies one constant line.
type problem struct {
	status block.Status
	text   string
}

// maxProblemText bounds the texts, so that any reply without payload fits in
// smallReply bytes.
const maxProblemText = smallReply - errorHeader

var (
	problemCommand    = &problem{block.Invalid, "unknown command"}
	problemFlags      = &problem{block.Invalid, "flag not valid for this command"}
	problemReadOnly   = &problem{block.NotPermitted, "export is read-only"}
	problemFlush      = &problem{block.Invalid, "a flush has no offset or length"}
	problemContexts   = &problem{block.Invalid, "no status context was selected"}
	problemEmpty      = &problem{block.Invalid, "length is zero"}
	problemLong       = &problem{block.Invalid, "longer than the maximum block size"}
	problemLongRead   = &problem{block.Overflow, "longer than the maximum block size"}
	problemAlignment  = &problem{block.Invalid, "not aligned to the minimum block size"}
	problemRange      = &problem{block.Invalid, "beyond the end of the export"}
	problemWriteRange = &problem{block.NoSpace, "beyond the end of the export"}
	problemShutdown   = &problem{block.ShuttingDown, "this node serves no longer"}
)

// terms are what a connection agreed on, as far as requests are checked
// against it.
type terms struct {
	size       uint64 // bytes
	minimum    uint32 // bytes, power of two
	maximum    uint32 // bytes
	readOnly   bool
	structured bool
	contexts   uint8
}

// allowedFlags are the flags that a command may carry. FUA may stand on any.
func (t *terms) allowedFlags(op block.Op) block.Flags {
	switch {
	case op == block.Read && t.structured:
		return block.FUA | block.DF
	case op == block.WriteZeroes:
		return block.FUA | block.NoHole | block.FastZero
	case op == block.BlockStatus:
		return block.FUA | block.ReqOne
	}
	return block.FUA
}

// validate holds all rules about what is a valid request, in the order in
// which they are checked. It returns nil for a valid one. The error values are
// those of the specification, "Error values"; where that leaves it open (zero
// length, several faults at once) the more basic fault counts, and a zero
// length is one: it could only mean a mistake.
func (t *terms) validate(rec block.Record) *problem {
	switch rec.Op {
	case block.Read, block.Write, block.Flush, block.Trim, block.Cache, block.WriteZeroes, block.BlockStatus:
	default:
		return problemCommand
	}
	payload := rec.Op == block.Read || rec.Op == block.Write
	switch {
	case rec.Flags&^t.allowedFlags(rec.Op) != 0:
		return problemFlags
	case rec.Op.Changes() && t.readOnly:
		return problemReadOnly
	case rec.Op == block.Flush && (rec.Offset != 0 || rec.Length != 0):
		return problemFlush
	case rec.Op == block.Flush:
		return nil
	case rec.Op == block.BlockStatus && t.contexts == 0:
		return problemContexts
	case rec.Length == 0:
		return problemEmpty
	case payload && rec.Length > t.maximum && rec.Op == block.Read && t.structured:
		return problemLongRead
	case payload && rec.Length > t.maximum:
		return problemLong
	case (rec.Offset|uint64(rec.Length))&uint64(t.minimum-1) != 0:
		return problemAlignment
	case rec.Offset > t.size || uint64(rec.Length) > t.size-rec.Offset:
		if rec.Op == block.Write || rec.Op == block.WriteZeroes {
			return problemWriteRange
		}
		return problemRange
	}
	return nil
}

// failures are the problems that an engine can report, with the error values
// that the specification allows. What is not here is EIO.
var failures = map[block.Status]*problem{
	block.NotPermitted: {block.NotPermitted, "not permitted"},
	block.IOError:      {block.IOError, "input/output error"},
	block.NoMemory:     {block.NoMemory, "out of memory"},
	block.Invalid:      {block.Invalid, "request not valid"},
	block.NoSpace:      {block.NoSpace, "no space left"},
	block.Overflow:     {block.Overflow, "answer too long"},
	block.NotSupported: {block.NotSupported, "would not be fast"},
	block.ShuttingDown: problemShutdown,
}

// failure maps the outcome of a request that did not succeed to what the
// client is told. NotSupported may only answer a request that said "fast or
// not at all".
func failure(r *block.Request) *problem {
	p := failures[r.Status]
	if p == nil || r.Status == block.NotSupported && r.Flags&block.FastZero == 0 {
		return failures[block.IOError]
	}
	return p
}
