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
	work    work   // in the backlog
	started time.Duration
	claimed bool // counted as in flight in the intents of its regions
	open    bool // given to the disks, and not past advance
	local   bool // the local disk has not answered
	peer    bool // the peer has not answered
	lone    bool // the peer is not known to have it
	status  block.Status
	follows bool // carried out for the peer, see remote.go
	hosted  hosted

	task *diskTask
	next *op // in at most one queue
}

// diskTask is what the local disk holds of an op. It is apart from the op, which
// goes on without it when the disk does not answer.
type diskTask struct {
	block.Task
	op *op // nil when recalled
}

// assign gives the local disk a task of o.
func (e *Engine) assign(o *op, t block.Task) {
	o.local = true
	t.Engine = o.task
	o.task.Task, o.task.op = t, o
	e.do(&o.task.Task)
}

func (t *diskTask) finished(*block.Task) {
	if t.op != nil {
		t.op.finished(&t.Task)
	}
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
	slabs [][]op
	free  *op
	used  int
}

const slabOps = 64

func (e *Engine) newOp() *op {
	o := e.ops.free
	if o == nil {
		slab, tasks := make([]op, slabOps), make([]diskTask, slabOps)
		for i := range slab {
			slab[i].task = &tasks[i]
			slab[i].next, e.ops.free = e.ops.free, &slab[i]
		}
		e.ops.slabs = append(e.ops.slabs, slab)
		o = e.ops.free
	}
	e.ops.free = o.next
	e.ops.used++
	*o = op{engine: e, started: e.now, task: o.task}
	o.lock.owner = o
	return o
}

// freeOp takes back an op of which no disk holds a task.
func (e *Engine) freeOp(o *op) {
	if o.local {
		bug("%s at %d ends while the disk has it", o.kind, o.offset)
	}
	e.ops.used--
	o.req, o.data, o.record, o.payload = nil, nil, nil, nil
	o.task.Data, o.task.Extents = nil, nil
	o.next, e.ops.free = e.ops.free, o
}

// size is the length in bytes of what goes to the peer.
func (o *op) size() int { return len(o.record) + len(o.payload) }
