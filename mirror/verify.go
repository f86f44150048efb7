// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twinbd/twinbd/internal/block"
)

// verify compares the two disks by checksum while clients go on. Each run is
// read on both nodes under a shared range lock, so no write is in flight in it
// and a difference is a difference. Blocks that differ become dirty; repair
// copies them from the primary by an ordinary resync.
type verify struct {
	engine *Engine
	active bool
	repair bool
	cursor int64
	nextID uint64
	runs   []*sumRun // under way, at most sumRuns
	reads  int
	free   *sumRun

	progress Progress
	last     string // how the last one ended
}

const (
	maxSumBlocks = 64 // 256 KiB: what one turn of the loop may spend on sums
	sumRuns      = 8
	busySumRuns  = 2
)

// sumRun is one run being compared.
type sumRun struct {
	verify       *verify
	lock         lock
	task         block.Task
	id           uint64
	first, count int64
	buffer       []byte
	read         bool // the local disk has answered
	sent         bool
	since        time.Duration // sent
	dead         bool
	mine, theirs []byte
	next         *sumRun
}

// ErrNotMirroring is returned when there is no peer to compare with.
var ErrNotMirroring = errors.New("the volume is not mirrored now")

// Verify begins to compare the disks; the outcome shows in Status. With repair
// the blocks that differ are copied from this node at the end.
func (e *Engine) Verify(now time.Duration, repair bool) error {
	e.now = now
	v := &e.verify
	switch {
	case v.active:
		return errors.New("a verify is under way")
	case e.session.state != Mirroring:
		return fmt.Errorf("%w: %s", ErrNotMirroring, e.session.reason)
	case !e.primary && e.session.received.Primary:
		return fmt.Errorf("%s serves the volume: run it there", e.cfg.Peer)
	}
	v.active, v.repair, v.cursor = true, repair, 0
	v.progress = Progress{Total: e.dirty.Blocks(), Began: e.now}
	v.last = ""
	e.observe("verify", "", "running", "")
	v.pump()
	e.settle()
	return nil
}

func (v *verify) pump() {
	e := v.engine
	if !v.active {
		return
	}
	most := sumRuns
	if e.ops.used > 0 {
		most = busySumRuns
	}
	for len(v.runs) < most && v.cursor < e.dirty.Blocks() {
		count := min(maxSumBlocks, e.dirty.Blocks()-v.cursor)
		v.begin(v.cursor, count)
		v.cursor += count
	}
	if len(v.runs) == 0 {
		v.end()
	}
}

func (v *verify) begin(first, count int64) {
	e := v.engine
	c := v.free
	if c == nil {
		c = &sumRun{verify: v, buffer: make([]byte, maxSumBlocks*block.Size)}
		c.lock.owner, c.lock.shared = c, true
	} else {
		v.free = c.next
	}
	v.nextID++
	c.id, c.first, c.count, c.next = v.nextID, first, count, nil
	c.read, c.sent, c.dead, c.mine, c.theirs = false, false, false, c.mine[:0], c.theirs[:0]
	v.runs = append(v.runs, c)
	c.lock.start = first * block.Size
	c.lock.end = min(c.lock.start+count*block.Size, e.size)
	if e.locks.acquire(&c.lock) {
		c.locked()
	}
}

func (c *sumRun) locked() {
	e := c.verify.engine
	length := c.lock.end - c.lock.start
	c.task = block.Task{Op: block.Read, Offset: c.lock.start, Length: length, Data: c.buffer[:length], Drop: true, Engine: c}
	c.verify.reads++
	c.sent, c.since = true, e.now
	e.do(&c.task)
	var p [8]byte
	binary.BigEndian.PutUint64(p[:], uint64(c.first))
	e.session.bulk.pushCopy(&Frame{Type: frameSum, Session: e.session.id, Sequence: c.id, Count: uint32(c.count)}, p[:])
}

func (c *sumRun) finished(t *block.Task) {
	v := c.verify
	v.reads--
	switch {
	case c.dead:
		v.put(c)
	case t.Err != nil:
		c.read = true
		v.engine.localFailed("read for verify", t.Err)
	default:
		if t.Zeroes {
			clear(t.Data)
		}
		c.read, c.mine = true, appendSums(c.mine, t.Data)
		v.compare(c)
	}
}

func (v *verify) reply(f *Frame) error {
	at := slices.IndexFunc(v.runs, func(c *sumRun) bool { return c.id == f.Sequence && c.sent && len(c.theirs) == 0 })
	if at < 0 {
		return errSequence
	}
	c := v.runs[at]
	if s := block.Status(f.Count); s != block.OK {
		return peerFailed(s)
	}
	if int64(len(f.Payload)) != c.count*sumSize {
		return errPayload
	}
	c.theirs = append(c.theirs, f.Payload...)
	v.compare(c)
	return nil
}

// compare ends a run when both nodes have summed it.
func (v *verify) compare(c *sumRun) {
	if len(c.mine) == 0 || len(c.theirs) == 0 {
		return
	}
	e := v.engine
	for i := int64(0); i < c.count; i++ {
		if at := i * sumSize; !bytes.Equal(c.mine[at:at+sumSize], c.theirs[at:at+sumSize]) {
			e.dirty.Set(c.first+i, 1)
			v.progress.Different++
		}
	}
	v.progress.Done += c.count
	v.runs = slices.DeleteFunc(v.runs, func(o *sumRun) bool { return o == c })
	e.unlock(&c.lock)
	v.put(c)
	v.pump()
}

func (v *verify) put(c *sumRun) { c.next, v.free = v.free, c }

func (v *verify) end() {
	e := v.engine
	v.active = false
	v.progress.Ended = e.now
	v.last = fmt.Sprintf("%d of %d blocks differ", v.progress.Different, v.progress.Total)
	e.observe("verify", "running", "done", v.last)
	if v.progress.Different == 0 {
		return
	}
	e.meta.wantPages(nil)
	if v.repair {
		e.becomeDisconnected("repair: " + v.last)
	}
}

// stop ends a verify that cannot go on.
func (v *verify) stop(reason string) {
	if !v.active {
		return
	}
	e := v.engine
	v.active = false
	v.progress.Ended = e.now
	v.last = "stopped: " + reason
	e.observe("verify", "running", "stopped", reason)
	for _, c := range v.runs {
		switch {
		case c.lock.waits > 0:
			e.free = e.locks.abandon(&c.lock, e.free)
			v.put(c)
		case c.read:
			e.unlock(&c.lock)
			v.put(c)
		default:
			e.unlock(&c.lock)
			c.dead = true
		}
	}
	v.runs = v.runs[:0]
}

func (v *verify) busy() bool { return v.reads > 0 }
