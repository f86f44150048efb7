// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"hash/crc32"

	"github.com/twinbd/twinbd/internal/block"
)

// mode says where a request is carried out. It follows from the session, the
// right and the local disk; whoever changes one of these calls thaw.
type mode uint8

const (
	modeFrozen    mode = iota // clients wait, nothing fails
	modeReplicate             // on both disks
	modeAlone                 // on the local disk; the peer's blocks become dirty
	modeRemote                // on the peer's disk, the local one has failed
	modeDead                  // on none: EIO
)

func (e *Engine) mode() mode {
	switch {
	case e.local == diskFailed:
		return e.remote.mode()
	case e.session.replicates():
		return modeReplicate
	case e.right == RightAlone:
		return modeAlone
	}
	return modeFrozen
}

// thaw lets everything that waited for another mode try again.
func (e *Engine) thaw() {
	waiting := e.frozen.take()
	for o := waiting.pop(); o != nil; o = waiting.pop() {
		if o.kind == block.Read {
			e.read(o)
		} else {
			e.run = append(e.run, o)
		}
	}
	e.acknowledgeHeld()
}

// launch sends what was admitted in this turn to the peer, as one run, and
// then gives it to the local disk. The order of the run is the order on both.
func (e *Engine) launch() {
	if len(e.run) == 0 {
		return
	}
	e.dropUnowed()
	switch m := e.mode(); m {
	case modeReplicate, modeRemote:
		e.replicate(m)
	case modeAlone:
		for _, o := range e.run {
			o.lone = true
			e.marks.dirtied(e, o)
			e.writeLocal(o)
		}
	case modeFrozen:
		for _, o := range e.run {
			e.frozen.push(o)
		}
	case modeDead:
		for _, o := range e.run {
			e.dropIntents(o)
			e.answer(o, block.IOError)
		}
	}
	e.run = e.run[:0]
}

// dropUnowed takes out of the run what nobody waits for any more.
func (e *Engine) dropUnowed() {
	kept := e.run[:0]
	for _, o := range e.run {
		if e.owed(o) {
			kept = append(kept, o)
		} else {
			e.giveUp(o)
		}
	}
	e.run = kept
}

// replicate sends the run to the peer and writes it here.
func (e *Engine) replicate(m mode) {
	batch := 0
	for i, o := range e.run {
		if !e.window.room(e) {
			for _, rest := range e.run[i:] {
				e.window.stalled.push(rest)
			}
			e.run = e.run[:i]
			break
		}
		e.window.add(e, o)
		batch++
	}
	e.sendRun(e.run[:batch])
	if m == modeRemote {
		return
	}
	for _, o := range e.run[:batch] {
		e.writeLocal(o)
	}
}

// sendRun puts ops with consecutive sequences on the data link as batch
// frames: a header before the records as they were received.
func (e *Engine) sendRun(run []*op) {
	l := e.session.data
	for len(run) > 0 && !l.closed {
		n, length, sum := 0, 0, uint32(0)
		for n < len(run) && (n == 0 || length+run[n].size() <= maxRun) {
			length += run[n].size()
			sum = crc32.Update(sum, block.Castagnoli, run[n].record)
			sum = crc32.Update(sum, block.Castagnoli, run[n].payload)
			n++
		}
		f := Frame{Type: frameBatch, Session: e.session.id, Sequence: run[0].seq, Count: uint32(n)}
		putFrameHeader(l.room(frameHeader), &f, length, sum)
		for _, o := range run[:n] {
			l.append(o.record, block.Hold{})
			if len(o.payload) > 0 {
				l.append(o.payload, block.Hold{})
			}
		}
		e.counters.SentBytes += int64(length)
		run = run[n:]
	}
}

// writeLocal gives a change to the local disk.
func (e *Engine) writeLocal(o *op) {
	o.open, o.local = true, true
	o.task = block.Task{
		Op: o.kind, Offset: o.offset, Length: o.length, Data: o.data,
		Punch: e.cfg.Punch && o.flags&block.NoHole == 0, Engine: o,
	}
	e.do(&o.task)
}

// finished: the local disk has answered.
func (o *op) finished(t *block.Task) {
	e := o.engine
	o.local = false
	switch {
	case o.orphan:
		e.ops.orphans--
		e.ops.put(o)
	case o.kind == block.Read:
		e.readDone(o, t)
	case o.kind == block.Cache:
		e.answer(o, block.OK)
	case o.kind == block.BlockStatus:
		e.allocated(o, t)
	default:
		if t.Err != nil {
			e.localFailed("write", t.Err)
		}
		e.advance(o)
	}
}

// advance goes on with a change that both disks have answered (rule 2). A disk
// that failed is not waited for once the record names the peer.
func (e *Engine) advance(o *op) {
	if !o.open || o.peer || o.local && !e.abandoned() {
		return
	}
	o.open = false
	e.window.remove(o)
	switch {
	case e.local == diskFailed:
		e.marks.dirtied(e, o) // for the peer to know what this disk lacks
		e.hold(o)
	case o.lone:
		e.hold(o)
	default:
		e.marks.taken(e, o)
		e.taken(o)
	}
}

// abandoned reports whether the local disk is out of the game, whatever tasks
// it still holds.
func (e *Engine) abandoned() bool { return e.local == diskFailed && e.remote.named }

// taken: every disk that must has the change; durability may still be wanted.
func (e *Engine) taken(o *op) {
	e.dropIntents(o)
	if o.flags&block.FUA != 0 {
		e.unlock(&o.lock)
		e.rounds.join(e, o)
		return
	}
	e.answer(o, block.OK)
}
