// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"time"

	"github.com/twinbd/twinbd/internal/block"
)

// rounds are flushes of both disks (rule 3). One round is under way at a time;
// whoever arrives meanwhile shares the next. A round makes durable, on both
// disks, every change that was acknowledged before it began; then the log of
// what the peer has not flushed is forgotten, and intents may go (rule 5).
type rounds struct {
	next      uint64 // number of the next round to begin
	completed uint64 // every change taken before this round began is durable
	active    bool
	local     bool // the local disk has not answered
	peer      bool // the peer has not answered
	lone      bool // the peer did not take part
	wanted    bool // one more, though nobody waits for an answer
	began     time.Duration

	waiting, current opQueue
	task             block.Task
	then             []func() // called when a round that began after then was added is done
	thenCurrent      []func()
}

// firstRound is the number of the first round of a process.
const firstRound = 1

func (r *rounds) init() { r.next = firstRound }

// join makes o wait for a round that begins from now on.
func (r *rounds) join(e *Engine, o *op) {
	r.waiting.push(o)
	r.begin(e)
}

// want asks for a round for the engine's own sake.
func (r *rounds) want(e *Engine) {
	if !r.active || len(e.marks.open) > 0 || e.backlog.open.bytes > 0 || r.waiting.length > 0 {
		r.wanted = true
	}
	r.begin(e)
}

// whenDone calls f when a round that begins from now on is done.
func (r *rounds) whenDone(e *Engine, f func()) {
	r.then = append(r.then, f)
	r.wanted = true
	r.begin(e)
}

// begin starts a round if one is wanted and none is under way.
func (r *rounds) begin(e *Engine) {
	if r.active || !r.wanted && r.waiting.length == 0 {
		return
	}
	m := e.mode()
	if m == modeDead {
		r.fail(e)
		return
	}
	r.active, r.wanted, r.began = true, false, e.now
	r.current = r.waiting.take()
	r.thenCurrent, r.then = r.then, nil
	r.next++
	e.marks.lastFlush = e.now
	e.backlog.flushing()
	r.lone = m != modeReplicate && m != modeRemote
	if !r.lone {
		e.marks.close()
		r.peer = !mutated("a flush waits for the peer")
		e.session.data.push(&Frame{Type: frameFlush, Session: e.session.id, Sequence: r.next}, nil)
	}
	if e.local == diskGood {
		r.local = true
		r.task = block.Task{Op: block.Flush, Engine: r.taskOwner(e)}
		e.do(&r.task)
	}
	r.check(e)
}

// roundTask makes the round's flush find its engine again.
type roundTask struct{ e *Engine }

func (r *rounds) taskOwner(e *Engine) tasker {
	if t, ok := r.task.Engine.(*roundTask); ok {
		return t
	}
	return &roundTask{e}
}

func (t *roundTask) finished(k *block.Task) {
	e := t.e
	if !e.rounds.local {
		return // it hung, and was given up
	}
	e.rounds.local = false
	if k.Err != nil && !mutated("a failed flush is a failed disk") {
		e.localFailed("flush", k.Err)
	}
	e.rounds.check(e)
}

// peerDone takes the peer's answer to the round under way.
func (r *rounds) peerDone(e *Engine, sequence uint64, s block.Status) error {
	switch {
	case !r.peer && mutated("a flush waits for the peer"):
		return nil
	case !r.peer || sequence != r.next:
		return errSequence
	case s != block.OK:
		return peerFailed(s)
	}
	r.peer = false
	r.check(e)
	return nil
}

// peerLost: the round goes on with the local disk alone.
func (r *rounds) peerLost(e *Engine) {
	if r.active {
		r.peer, r.lone = false, true
	}
}

// localLost: the round goes on without the local disk, which failed.
func (r *rounds) localLost() { r.local = false }

// check ends the round when every disk that takes part has answered.
func (r *rounds) check(e *Engine) {
	if !r.active || r.local || r.peer {
		return
	}
	r.active = false
	r.completed = r.next - 1
	e.backlog.flushed(e.now - r.began)
	if !r.lone && e.local == diskGood {
		e.marks.flushed()
	}
	done, then := r.current.take(), r.thenCurrent
	r.thenCurrent = nil
	for o := done.pop(); o != nil; o = done.pop() {
		if o.lone = r.lone; r.lone || e.local == diskFailed {
			e.hold(o)
		} else {
			e.answer(o, block.OK)
		}
	}
	for _, f := range then {
		f()
	}
	e.retryIntents()
	r.begin(e)
}

// fail answers everybody when there is no disk left.
func (r *rounds) fail(e *Engine) {
	r.wanted = false
	waiting := r.waiting.take()
	for o := waiting.pop(); o != nil; o = waiting.pop() {
		e.answer(o, block.IOError)
	}
	then := r.then
	r.then = nil
	for _, f := range then {
		f()
	}
}
