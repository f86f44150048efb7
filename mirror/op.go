// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"time"

	"github.com/twinbd/twinbd/internal/block"
)

// op is one request under way, or a piece of one. It holds the range lock from
// its admission until it is acknowledged.
type op struct {
	engine *Engine
	req    *block.Request // nil for a piece
	parent *op            // of a piece
	pieces int            // of a parent: pieces under way

	kind    block.Op
	flags   block.Flags
	offset  int64
	length  int64
	data    []byte                   // Write and Read
	record  []byte                   // what goes to the peer: header and payload,
	payload []byte                   // or, of a piece, the header alone and this
	header  [block.RecordHeader]byte // of a piece's record

	lock    lock
	txn     uint64 // metadata transaction that holds its intents
	seq     uint64 // in the window; 0 = not there
	started time.Duration
	claimed bool // counted as in flight in the intents of its regions
	open    bool // given to the disks, and not past advance
	local   bool // the local disk has not answered
	peer    bool // the peer has not answered
	lone    bool // the peer is not known to have it
	orphan  bool // answered while a disk that failed still holds its task
	status  block.Status
	follows bool // carried out for the peer, see remote.go
	hosted  hosted

	task block.Task
	next *op // in at most one queue
}

// opQueue is a first-in-first-out list of ops.
type opQueue struct {
	first, last *op
	length      int
}

func (q *opQueue) push(o *op) {
	o.next = nil
	if q.last == nil {
		q.first = o
	} else {
		q.last.next = o
	}
	q.last = o
	q.length++
}

func (q *opQueue) pop() *op {
	o := q.first
	if o == nil {
		return nil
	}
	q.first, o.next = o.next, nil
	if q.first == nil {
		q.last = nil
	}
	q.length--
	return o
}

// take empties the queue and returns what was in it, so that the members can
// be put back while they are gone through.
func (q *opQueue) take() opQueue {
	t := *q
	*q = opQueue{}
	return t
}

// opPool keeps ops that are not in use. Sessions bound how many are.
type opPool struct {
	free    *op
	used    int
	orphans int // see freeOp
}

func (e *Engine) newOp() *op {
	o := e.ops.free
	if o == nil {
		slab := make([]op, 64)
		for i := range slab {
			slab[i].next, e.ops.free = e.ops.free, &slab[i]
		}
		o = e.ops.free
	}
	e.ops.free = o.next
	e.ops.used++
	*o = op{engine: e, started: e.now}
	o.lock.owner = o
	o.task.Engine = o
	return o
}

// freeOp takes an op back. One whose task hangs in a disk that failed is kept
// until the task returns, if ever: the disk may still look at it.
func (e *Engine) freeOp(o *op) {
	e.ops.used--
	o.req, o.data, o.record, o.payload = nil, nil, nil, nil
	if o.local {
		o.orphan = true
		e.ops.orphans++
		return
	}
	e.ops.put(o)
}

func (p *opPool) put(o *op) {
	o.task.Data = nil
	o.next, p.free = p.free, o
}

// size is the length in bytes of what goes to the peer.
func (o *op) size() int { return len(o.record) + len(o.payload) }
