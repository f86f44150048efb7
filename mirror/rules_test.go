// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/internal/block/blocktest"
)

// One test for each rule of the data path; the rule in one line, then the
// smallest scenario that shows it. The simulation holds them all at once.

// No byte of a change reaches either disk before the intents of its regions
// are durable.
func TestRule01IntentBeforeData(t *testing.T) {
	s := newScript(t)
	r := s.write(s.a, 0, 1, 7)
	for s.a.has(onMetadata) {
		s.require(!s.a.has(onData) && !s.a.speaks(), "silent before the intent is durable")
		s.do(s.a, onMetadata)
	}
	s.require(s.a.has(onData) && s.a.speaks(), "under way once the intent is durable")
	durable := s.a.stored()[0]
	s.require(len(durable.Regions) == 1 && durable.Regions[0] == 0, "durable: the intent of region 0")
	s.run()
	s.require(r.answered(block.OK), "acknowledged")

	s.write(s.a, 1, 1, 8)
	s.require(!s.a.has(onMetadata) && s.a.has(onData), "free of charge where the intent is set")
	s.run()
}

// A change is acknowledged when both disks have it.
func TestRule02AckMeansBoth(t *testing.T) {
	s := newScript(t)
	s.write(s.a, 0, 1, 1)
	s.run()

	r := s.write(s.a, 0, 1, 2)
	s.do(s.a, nil)
	s.require(!r.done, "waiting for the peer's disk")
	s.deliver(s.b)
	s.deliver(s.a)
	s.require(!r.done, "waiting for the peer's disk, which has only got the write")
	s.do(s.b, nil)
	s.deliver(s.a)
	s.require(r.answered(block.OK), "acknowledged")

	r = s.write(s.a, 0, 1, 3)
	s.deliver(s.b)
	s.do(s.b, nil)
	s.deliver(s.a)
	s.require(!r.done, "waiting for the local disk")
	s.do(s.a, nil)
	s.require(r.answered(block.OK), "acknowledged")
	s.require(s.a.holds(0) == 3 && s.b.holds(0) == 3, "on both disks")
}

// A flush, and a write with FUA, are acknowledged when both disks are durable.
func TestRule03FlushMeansBoth(t *testing.T) {
	for _, op := range []block.Op{block.Flush, block.Write} {
		s := newScript(t)
		s.write(s.a, 0, 1, 1)
		s.run()
		r := s.submit(s.a, op, block.FUA, 0, 1, 2)
		flush := func(t *block.Task) bool { return t.Op == block.Flush }
		other := func(t *block.Task) bool { return t.Op != block.Flush }
		for s.do(s.a, other)+s.do(s.b, other) > 0 || s.deliver(s.a) || s.deliver(s.b) {
		}
		s.require(s.a.has(flush) && s.b.has(flush), "flushing both disks at the same time")
		s.do(s.a, nil)
		s.require(!r.done, "waiting for the peer's flush")
		s.do(s.b, nil)
		s.deliver(s.a)
		s.require(r.answered(block.OK), "acknowledged")
		s.require(s.a.data.Unsynced() == 0 && s.b.data.Unsynced() == 0, "durable on both")
	}
}

// What the peer has acknowledged and not flushed is dirty when it is lost.
func TestRule04WhatThePeerMayHaveLostIsDirty(t *testing.T) {
	s := newScript(t)
	s.write(s.a, 3, 2, 1)
	s.run()
	s.submit(s.a, block.Flush, 0, 0, 0, 0)
	s.run()
	s.write(s.a, 40, 1, 2)
	s.run()
	late := s.write(s.a, 41, 1, 3) // the peer has acknowledged, our disk has not
	s.deliver(s.b)
	s.do(s.b, nil)
	s.deliver(s.a)
	s.restart(s.b, true)
	s.require(!s.a.engine.dirty.Any(3, 2), "clean: the peer has flushed it")
	s.require(s.a.engine.dirty.Full(40, 2), "dirty: the peer may have lost it")
	s.arbitrated()
	s.require(late.answered(block.OK), "acknowledged alone")
	s.connect()
	s.arbitrated()
	s.compare()
	s.require(s.b.holds(41) == 3, "copied")

	s.write(s.a, 50, 1, 4)
	s.run()
	s.wait(400*time.Millisecond, s.run)
	s.require(s.b.data.Unsynced() == 0, "flushed without being asked, so that little is ever in doubt")
}

// A mark is cleared when the copy is durable at the target; an intent when both
// disks were flushed.
func TestRule05MarksAreClearedLate(t *testing.T) {
	s := newScript(t)
	s.cut()
	s.arbitrated()
	s.write(s.a, 5, 1, 9)
	s.run()
	s.connect()
	for s.a.engine.session.state != Resyncing || !s.b.has(onData) {
		s.do(s.a, nil)
		s.do(s.b, onMetadata)
		s.deliver(s.b)
		s.deliver(s.a)
	}
	s.do(s.b, func(t *block.Task) bool { return onData(t) && t.Op != block.Flush })
	s.deliver(s.a)
	s.require(s.a.engine.dirty.Any(5, 1) && s.b.has(onData), "dirty: the copy is written, not durable")
	s.do(s.b, onData)
	s.deliver(s.a)
	s.require(!s.a.engine.dirty.Any(5, 1), "clean: the copy is durable")
	s.run()

	for region := range int64(3) { // all the intents that there are
		s.write(s.a, region*simRegion/block.Size, 1, 10)
	}
	s.run()
	r := s.write(s.a, 3*simRegion/block.Size, 1, 11)
	s.require(len(s.a.stored()[0].Regions) == 3 && !r.done, "starved: no intent is given up before a flush")
	s.run()
	s.require(r.answered(block.OK), "acknowledged after one")
}

// A crash makes intents dirty; the resync set is the union of both nodes'.
func TestRule06ACrashMakesIntentsDirty(t *testing.T) {
	s := newScript(t)
	s.write(s.a, 20, 1, 1)
	s.run()
	s.restart(s.a, true)
	run := s.a.engine.meta.layout.Region(1)
	s.require(s.a.engine.dirty.Full(run.First, run.Count), "dirty: the region that had an intent")
	s.connect()
	for s.b.engine.resync.needs == false {
		s.do(s.a, nil)
		s.do(s.b, nil)
		s.deliver(s.a)
		s.deliver(s.b)
	}
	s.require(s.b.engine.dirty.Full(run.First, run.Count), "in the union, at the source")
	s.require(s.a.stored()[0].Header.State == bitmap.Consistent, "not yet a target")
}

// Overlapping requests run in the order of their arrival, on both disks.
func TestRule07OverlappingRequestsAreOrdered(t *testing.T) {
	s := newScript(t)
	s.write(s.a, 0, 1, 1)
	s.run()
	first := s.write(s.a, 2, 4, 2)
	second, read, apart := s.write(s.a, 4, 4, 3), s.submit(s.a, block.Read, 0, 5, 1, 0), s.write(s.a, 10, 1, 4)
	data := 0
	for _, t := range s.a.tasks {
		data++
		s.require(t.Offset != 4*block.Size && t.Op != block.Read, "waiting behind what it overlaps")
	}
	s.require(data == 2, "two writes under way")
	s.do(s.a, nil)
	s.require(!second.done && !read.done, "waiting for the peer, too")
	s.run()
	s.require(first.done && second.done && read.done && apart.done, "done")
	s.require(version(read.Data) == 3, "read after the write before it")
	s.require(s.a.holds(4) == 3 && s.b.holds(4) == 3 && s.b.holds(3) == 2, "in the same order on both")
}

// A failed flush is a failed disk, durably; the primary goes on from its peer's.
func TestRule08AFailedFlushIsAFailedDisk(t *testing.T) {
	fails := func(target block.Target, op block.Op) func(*script) {
		return func(s *script) {
			[...]*blocktest.CrashDisk{s.a.data, s.a.meta}[target].Inject(blocktest.Fault{Match: blocktest.On(op), Err: errMedium})
		}
	}
	for name, breaks := range map[string]func(*script){
		"write": fails(block.Data, block.Write), "flush": fails(block.Data, block.Flush), "read": fails(block.Data, block.Read),
		"metadata write": fails(block.Metadata, block.Write), "metadata flush": fails(block.Metadata, block.Flush),
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t)
			s.write(s.a, 0, 2, 1)
			s.run()
			breaks(s)
			open := []*clientRequest{
				s.write(s.a, 1, 2, 2), s.write(s.a, 30, 1, 3), s.submit(s.a, block.Flush, 0, 0, 0, 0), s.submit(s.a, block.Read, 0, 0, 1, 0),
			}
			s.arbitrated()
			s.require(s.a.engine.local == diskFailed && s.record.holder == 1 && s.a.engine.mode() == modeRemote, "served by the peer's disk")
			open = append(open, s.write(s.a, 2, 1, 4), s.submit(s.a, block.Write, block.FUA, 50, 1, 5), s.submit(s.a, block.Read, 0, 1, 1, 0))
			s.run()
			for _, r := range open {
				s.require(r.answered(block.OK), "answered: "+r.Op.String())
			}
			s.require(s.a.data.Counts().SyncsAfterFailure == 0, "tried once only")
			s.require(s.b.holds(2) == 4 && s.b.holds(50) == 5 && s.b.header().Generation != s.a.header().Generation, "the peer's own history")
			if name != "metadata write" && name != "metadata flush" {
				s.require(s.a.header().State == bitmap.Failed, "durably failed")
			}
			s.cover()

			s.b.data.Inject(blocktest.Fault{Err: errMedium})
			r := s.write(s.a, 60, 1, 6)
			s.arbitrated()
			s.require(!r.done, "waiting: the peer may come back with its disk")
			s.connect()
			s.arbitrated()
			s.require(r.answered(block.IOError), "answered with EIO: both disks have failed")
		})
	}
}

// hold submits one request of every kind, which a disk that hangs then owes.
func (s *script) hold(n *simNode) (held []*clientRequest, status *clientRequest) {
	held = []*clientRequest{
		s.write(n, 0, 1, 2), s.submit(n, block.Flush, 0, 0, 0, 0), s.submit(n, block.Read, 0, 5, 1, 0),
		s.submit(n, block.Read, 0, 0, 1, 0), s.submit(n, block.Cache, 0, 6, 1, 0), s.submit(n, block.Trim, block.FUA, 8, 1, 3),
	}
	return held, s.submit(n, block.BlockStatus, 0, 7, 1, 0)
}

// A disk that hangs is a failed disk, too: every request that it holds goes on
// without it, and what it does later touches nobody's memory.
func TestRule08AHungDiskIsAFailedDisk(t *testing.T) {
	s := newScript(t)
	s.write(s.a, 0, 1, 1)
	s.run()
	s.hang(s.a)
	held, status := s.hold(s.a)
	settle := func() {
		s.run()
		s.arbitrate(s.a)
	}
	s.wait(1900*time.Millisecond, settle)
	for _, r := range append(held, status) {
		s.require(!r.done, "waiting for the disk: "+r.Op.String())
	}
	s.wait(700*time.Millisecond, settle)
	s.require(s.a.engine.local == diskFailed, "failed")
	for _, r := range held {
		s.require(r.answered(block.OK), "answered without it: "+r.Op.String())
	}
	s.require(status.answered(block.OK) && len(status.Extents[0]) == 1, "all is data")
	s.require(version(held[3].Data) == 2, "read what was written, at the peer")
	read := bytes.Clone(held[2].Data)
	after := s.submit(s.a, block.Read, 0, 0, 1, 0)
	settle()
	s.require(after.answered(block.OK), "answered at once")

	s.require(len(s.a.tasks) > 0, "still held by the disk")
	s.a.hung = [2]bool{}
	s.run()
	s.require(bytes.Equal(held[2].Data, read), "untouched when the disk comes back to life")
	s.require(s.a.holds(0) <= 2, "never the bytes of another request")
	s.require(s.a.engine.ops.used == 0, "nothing left")
}

// The last good copy is not given up because it hangs: nobody could go on
// without it. What it owes is answered when it answers.
func TestRule23AHungLastCopyIsWaitedFor(t *testing.T) {
	s := newScript(t)
	s.write(s.a, 0, 1, 1)
	s.run()
	s.cut()
	s.arbitrated()
	s.write(s.a, 9, 1, 1)
	s.run()
	s.hang(s.a)
	held, status := s.hold(s.a)
	s.wait(time.Minute, s.run)
	s.require(s.a.engine.local == diskGood && s.a.engine.header.State == bitmap.Consistent, "not failed")
	s.require(strings.Contains(s.a.engine.Status().DiskSilent, "no answer for"), "said to be silent")
	for _, r := range append(held, status) {
		s.require(!r.done, "waiting for the disk: "+r.Op.String())
	}
	s.a.hung = [2]bool{}
	s.run()
	for _, r := range append(held, status) {
		s.require(r.answered(block.OK), "answered by the disk: "+r.Op.String())
	}
	s.require(version(held[3].Data) == 2, "read what was written")
	s.tick(s.a)
	s.require(s.a.engine.Status().DiskSilent == "", "not silent any more")

	s.hang(s.a)
	r := s.submit(s.a, block.Read, 0, 0, 1, 0)
	s.wait(3*time.Second, s.run)
	s.connect()
	s.wait(3*time.Second, s.run)
	s.require(!r.done && s.b.engine.header.State == bitmap.Consistent, "nobody is resynced from a disk that hangs")
	s.a.hung = [2]bool{}
	s.run()
	s.arbitrated()
	s.require(r.answered(block.OK) && s.a.engine.session.state == Mirroring, "mirrored once it answers")
}

// A failed disk stays failed, and the operator alone can take what it holds for
// the truth: after a restart, for until then it may still do what it was told.
func TestRule08OnlyForceBelievesAFailedDisk(t *testing.T) {
	s := newScript(t)
	s.a.keeps = true
	s.write(s.a, 0, 1, 1)
	s.run()
	s.cut()
	s.arbitrated()
	s.write(s.a, 9, 1, 2)
	s.run()
	s.a.data.Inject(blocktest.Fault{Match: blocktest.On(block.Write), Times: 1, Err: errMedium})
	w := s.write(s.a, 10, 1, 3)
	s.run()
	s.require(w.answered(block.IOError) && s.a.engine.local == diskFailed, "failed, and so is the write")
	s.a.engine.Demote(s.now, block.ShuttingDown, func() {})
	s.run()
	force := func() error {
		defer s.a.collect()
		return s.a.engine.Promote(s.now, RightAlone, "by the test", func() {})
	}
	s.require(errors.Is(force(), ErrDiskFailed), "refused in the process in which it failed")

	s.restart(s.a, false)
	s.require(s.a.engine.local == diskFailed, "failed still")
	s.require(errors.Is(s.a.engine.Promote(s.now, RightAlone, "", func() {}), ErrDiskFailed), "refused without force")
	s.must(force())
	s.run()
	r := s.submit(s.a, block.Read, 0, 9, 1, 0)
	s.run()
	s.require(r.answered(block.OK) && version(r.Data) == 2, "serves what it holds")
	s.require(s.a.engine.dirty.Count() == s.a.engine.dirty.Blocks(), "the other is to be copied anew")
	s.connect()
	s.run()
	s.arbitrated()
	s.require(s.b.holds(9) == 2 && s.a.engine.session.state == Mirroring, "mirrored")
}

// What was in flight when the disk failed by an error is not waited for either,
// once the record names the peer.
func TestRule08AFailedDiskIsNotWaitedFor(t *testing.T) {
	s := newScript(t)
	s.write(s.a, 0, 1, 1)
	s.run()
	w, r := s.write(s.a, 3, 1, 2), s.submit(s.a, block.Read, 0, 4, 1, 0)
	held := s.a.tasks
	s.a.tasks = nil
	s.a.data.Inject(blocktest.Fault{Match: blocktest.On(block.Flush), Times: 1, Err: errMedium})
	f := s.submit(s.a, block.Flush, 0, 0, 0, 0)
	s.run()
	s.require(!w.done && !r.done && s.a.engine.local == diskFailed, "waiting for the record")
	s.arbitrated()
	s.require(w.answered(block.OK) && r.answered(block.OK) && f.answered(block.OK), "answered by the peer")
	s.a.tasks = held
	s.run()
	s.require(s.a.engine.ops.used == 0, "nothing left")
}

// The peer learns by itself what the failed disk may lack: one that fails may
// have lied before, and come back without its last intents and without knowing
// that it has failed.
func TestRule08AFailedDiskIsNotTakenAtItsWord(t *testing.T) {
	s := newScript(t)
	s.a.meta.Inject(blocktest.Fault{Match: blocktest.On(block.Flush), Lie: true})
	s.write(s.a, 20, 1, 5)
	s.run() // on both disks, flushed by none
	w := s.write(s.a, 40, 1, 6)
	s.do(s.a, onMetadata)
	s.do(s.a, onMetadata)
	s.deliver(s.b)
	s.do(s.b, nil) // the peer's answer is on its way when the disk fails
	s.a.data.Inject(blocktest.Fault{Match: blocktest.On(block.Write), Err: errMedium})
	s.do(s.a, nil)
	s.arbitrate(s.a)
	s.require(s.a.engine.remote.named && s.a.engine.window.count == 1, "in flight when the record names the peer")
	s.require(s.a.engine.Status().Session == Hosting, "not said to be alike any more")
	s.run()
	s.require(w.answered(block.OK), "answered by the peer")

	s.a.data.PowerCut(s.rng, 1)
	s.a.data.Reopen()
	s.a.meta.PowerCut(s.rng, 1)
	s.a.meta.Reopen()
	s.restart(s.a, true)
	s.require(s.a.engine.local == diskGood && s.a.engine.dirty.Count() == 0, "back without a mark")
	s.connect()
	s.run()
	s.require(s.prim(s.b), "served by the peer, whom the record names")
	s.arbitrated()
	s.require(s.a.engine.session.state == Mirroring, "mirrored")
	s.require(s.a.holds(20) == 5 && s.a.holds(40) == 6, "copied, by the peer's own marks")
}

// A host that is to serve waits for the end of what it carries out for its peer,
// which waits for no room there: nobody flushes to make any.
func TestRule08AHostWithMuchToFlushTakesOver(t *testing.T) {
	s := newHosted(t)
	s.b.engine.backlog.most = block.Size
	s.write(s.a, 2, 1, 7)
	s.run()
	s.require(!s.b.engine.backlog.room(), "full")
	s.write(s.a, 70, 1, 6)
	s.deliver(s.b)
	s.require(s.b.engine.follower.tasks == 1 && s.b.has(onMetadata), "waiting for an intent")
	s.kill(s.a, false)
	s.require(s.prim(s.b) && !s.b.engine.Primary(), "about to serve")
	s.run()
	s.require(s.b.engine.Primary(), "serving")
	s.require(s.b.holds(1) == 5, "what was acknowledged")
}

// newHosted is a script in which beta serves in place of alpha's disk, which failed.
func newHosted(t *testing.T) *script {
	s := newScript(t)
	s.a.data.Inject(blocktest.Fault{Match: blocktest.On(block.Write), Err: errMedium})
	w := s.write(s.a, 1, 1, 5)
	s.arbitrated()
	s.require(w.answered(block.OK) && s.b.engine.remote.hosts, "served by the peer")
	return s
}

// What a host does is a history of its own: the disk that failed must not come back
// as an equal.
func TestRule09AHostParts(t *testing.T) {
	s := newHosted(t)
	a, b := s.a.header(), s.b.header()
	s.require(b.Generation != a.Generation && b.Base == a.Generation, "fenced from the disk that failed")
}

// What a host wrote for its peer is marked: the disk of that may come back.
func TestRule04AHostMarksWhatItWrites(t *testing.T) {
	s := newHosted(t)
	w := s.write(s.a, 50, 1, 7)
	s.run()
	s.require(w.answered(block.OK) && s.b.engine.dirty.Any(50, 1), "answered by the host, and marked there")
	s.a.data.PowerCut(s.rng, 1)
	s.a.data.Reopen()
	s.restart(s.a, true)
	s.connect()
	s.run()
	s.require(s.prim(s.b), "served by the peer, whom the record names")
	s.arbitrated()
	s.require(s.a.engine.session.state == Mirroring && s.a.holds(50) == 7, "copied")
}

// A host that has restarted may have lost what it acknowledged and had not flushed,
// and nobody else has it: clients hear of it.
func TestRule08ARestartedHostIsNotTakenForWhole(t *testing.T) {
	s := newHosted(t)
	w := s.write(s.a, 1, 1, 7)
	s.run()
	s.require(w.answered(block.OK), "answered by the host, and not flushed")
	s.restart(s.b, true)
	s.connect()
	s.arbitrated()
	r := s.submit(s.a, block.Read, 0, 1, 1, 0)
	s.arbitrated()
	s.require(r.answered(block.IOError), "refused: nobody may have what was acknowledged")
}

// Time in which nobody looked is not held against the disk: a process that was
// stopped finds its tasks old, not its disk dead.
func TestRule08AStoppedProcessIsNotAHungDisk(t *testing.T) {
	s := newScript(t)
	s.wait(time.Second, s.run)
	s.hang(s.a)
	r := s.submit(s.a, block.Read, 0, 0, 1, 0)
	s.now += time.Minute
	s.a.engine.CheckDisk(s.now, time.Minute)
	s.require(s.a.engine.local == diskGood, "good: nobody has looked for a minute")
	s.a.hung = [2]bool{}
	s.do(s.a, nil)
	s.require(r.answered(block.OK), "answered late")
	s.wait(time.Second, s.run)
	s.connect()
	s.run()
	s.hang(s.a)
	s.submit(s.a, block.Read, 0, 0, 1, 0)
	s.wait(2500*time.Millisecond, func() { s.deliver(s.a); s.deliver(s.b) })
	s.require(s.a.engine.local == diskFailed, "failed: it was looked at all the while")
}

// What hangs in the disk for the engine itself keeps nobody from meeting the
// peer again.
func TestRule08AHungVerifyHoldsNothingUp(t *testing.T) {
	s := newScript(t)
	s.must(s.a.engine.Verify(s.now, false))
	s.a.collect()
	s.hang(s.a)
	settle := func() { s.run(); s.arbitrate(s.a) }
	s.wait(3*time.Second, settle)
	s.require(s.a.engine.mode() == modeRemote && s.a.engine.verify.busy(), "served by the peer, with reads in the disk")
	s.cut()
	r := s.submit(s.a, block.Read, 0, 0, 1, 0)
	s.connect()
	s.arbitrated()
	s.require(r.answered(block.OK), "met, and served again")
}

// A right that changes while a node becomes primary is the one that it serves by.
func TestRule16TheRightWhilePromoting(t *testing.T) {
	s := newScript(t)
	s.record = record{s.record.epoch + 1, s.a.id, false}
	s.b.inStep = s.record.epoch
	s.kill(s.a, false)
	s.run()
	s.must(s.b.engine.Promote(s.now, RightAlone, "", func() {}))
	s.b.collect()
	s.require(!s.b.engine.Primary() && s.b.engine.NeedsRight(), "about to serve")
	s.b.engine.SetRight(s.now, RightPair)
	s.run()
	s.require(s.b.engine.Primary() && s.b.engine.Status().Right == RightPair, "serves in pair")
	w := s.write(s.b, 0, 1, 1)
	s.run()
	s.require(!w.done, "waiting: it may not acknowledge alone")
}

// What a source took while it was the secondary, with no intent of its own, is on
// its disk before the first mark goes because the target has it.
func TestRule05ASourceFlushesFirst(t *testing.T) {
	s := newScript(t)
	s.record = record{s.record.epoch + 1, s.a.id, false}
	s.b.inStep = s.record.epoch
	s.write(s.a, 0, 1, 7)
	s.run()
	s.kill(s.a, false)
	s.run()
	s.require(s.prim(s.b), "taken over")
	s.arbitrated()
	s.a.boot()
	s.connect()
	s.a.hung = [2]bool{true, false} // nothing is copied yet
	s.arbitrated()
	s.require(s.b.engine.session.state == Resyncing, "resyncing")
	s.b.data.PowerCut(s.rng, 1)
	s.b.data.Reopen()
	s.require(s.b.holds(0) == 7, "durable at the source")
}

// The peer was an equal again while the right to be alone was there still: what
// both have is flushed before anything more is acknowledged alone.
func TestRule09FlushedBeforeItPartsAgain(t *testing.T) {
	s := newScript(t)
	s.cut()
	s.arbitrated()
	s.connect()
	s.run() // and nobody has taken the right to be alone back
	s.a.engine.SetRight(s.now, RightAlone)
	w := s.write(s.a, 0, 1, 7)
	s.run()
	s.require(w.answered(block.OK) && s.a.engine.session.state == Mirroring, "mirrored")
	s.cut()
	s.a.hung = [2]bool{true, false}
	r := s.submit(s.a, block.Trim, 0, 9, 1, 8)
	s.run()
	s.a.hung = [2]bool{}
	for s.do(s.a, func(t *block.Task) bool { return onMetadata(t) || t.Op != block.Flush }) > 0 {
	}
	s.require(!r.done, "waiting for the flush")
	s.run()
	s.require(r.answered(block.OK), "acknowledged after it")
}

// A generation of its own is durable before the first lone acknowledgement, and
// a link that flaps while nothing is written needs none.
func TestRule09GenerationBeforeLoneAck(t *testing.T) {
	s := newScript(t)
	old := s.a.header().Generation
	s.cut()
	s.arbitrated()
	s.connect()
	s.arbitrated()
	s.require(s.a.engine.session.state == Mirroring && s.a.engine.resync.progress.Total == 0, "mirrored without a resync")
	s.require(s.a.header().Generation == old, "of the same generation")

	s.cut()
	s.arbitrated()
	r := s.write(s.a, 0, 1, 1)
	for !r.done {
		s.require(s.a.header().Generation == old, "of the old generation until the ack") // holds when the loop ends
		if s.do(s.a, func(t *block.Task) bool { return onMetadata(t) && t.Op == block.Flush }) == 0 && s.do(s.a, nil) == 0 {
			break
		}
		if s.a.header().Generation != old {
			break
		}
	}
	s.require(!s.a.header().Generation.IsZero() && s.a.header().Generation != old && s.a.header().Base == old, "durably of a new one, with the old as its base")
	s.run()
	s.require(r.answered(block.OK), "acknowledged")
}

// When finish may have arrived, the target may be an equal: whatever is
// acknowledged alone after that is of yet another generation.
func TestRule09AfterALostFinish(t *testing.T) {
	for _, arrives := range []bool{false, true} {
		s := newScript(t)
		s.cut()
		s.arbitrated()
		s.write(s.a, 0, 1, 1)
		s.run()
		s.connect()
		for s.a.engine.resync.ending == false || s.a.has(onData) || s.a.has(onMetadata) || s.b.has(onData) || !s.a.speaks() {
			s.do(s.a, nil)
			s.do(s.b, nil)
			s.deliver(s.a)
			if !s.a.engine.resync.ending || s.a.engine.rounds.active {
				s.deliver(s.b)
			}
		}
		if arrives { // and the answer does not
			s.deliver(s.b)
			for s.do(s.b, nil) > 0 {
			}
			s.require(s.b.header().Generation == s.a.header().Generation, "an equal")
		}
		s.cut()
		s.write(s.a, 9, 1, 2)
		s.arbitrated()
		s.require(s.a.header().Generation != s.b.header().Generation, "fenced")
		s.connect()
		s.arbitrated()
		s.compare()
		s.require(s.a.engine.resync.progress.Total < 20, "copied in part only")
	}
}

// Nothing is acknowledged alone before the arbiter has granted it, and it is
// asked only when the local disk is flushed: the service goes alone as a whole.
func TestRule10AloneByGrantOnly(t *testing.T) {
	s := newScript(t)
	s.write(s.a, 0, 1, 1)
	s.run()
	s.cut()
	s.require(len(s.a.asks) == 0, "flushing first")
	s.run()
	s.require(len(s.a.asks) == 1 && s.a.asks[0] == AskAlone && s.a.data.Unsynced() == 0, "asked, flushed")
	w, r, f := s.write(s.a, 0, 1, 2), s.submit(s.a, block.Read, 0, 3, 1, 0), s.submit(s.a, block.Flush, 0, 0, 0, 0)
	s.run()
	s.require(!w.done && !r.done && !f.done, "frozen: nothing fails, nothing is answered")
	s.arbitrated()
	s.require(w.answered(block.OK) && r.answered(block.OK) && f.answered(block.OK), "answered under the right")
}

// What was done alone waits for the right also when the peer is back already, and
// being copied to.
func TestRule10AloneWhileCopying(t *testing.T) {
	s := newScript(t)
	s.cut()
	s.arbitrated()
	s.write(s.a, 3, 1, 1)
	s.run()
	w := s.write(s.a, 3, 1, 2)
	late := s.a.tasks
	s.require(len(late) == 1 && onData(late[0]), "under way alone")
	s.a.tasks = nil
	s.connect()
	s.run()
	s.require(s.a.engine.session.state == Resyncing, "being copied, but for what is under way")
	s.a.engine.SetRight(s.now, RightNone)
	s.a.tasks = late
	s.do(s.a, func(t *block.Task) bool { return t == late[0] })
	s.run()
	s.require(s.a.engine.session.state == Resyncing && !w.done, "waiting for the right")
	s.arbitrated()
	s.require(w.answered(block.OK) && s.a.engine.session.state == Mirroring && s.b.holds(3) == 2, "answered under it, and copied")
}

// A source is the only whole copy for as long as the resync lasts, so it has the
// right to be that first (rule 18).
func TestRule18AResyncNeedsTheRight(t *testing.T) {
	s := newScript(t)
	s.write(s.a, 0, 1, 1)
	s.run()
	s.connect()
	s.run()
	s.require(s.a.engine.session.state == Comparing && s.b.header().State == bitmap.Consistent, "waiting, the target whole")
	s.arbitrated()
	s.require(s.a.engine.session.state == Mirroring, "copied under the right")
}

// A right that is taken back after the peer was lost is asked for anew: while it
// was there nobody had to ask.
func TestRule10AloneIsAskedForAnew(t *testing.T) {
	for _, less := range []Right{RightPair, RightNone} {
		s := newScript(t)
		s.cut()
		s.arbitrated()
		s.connect()
		s.run()
		s.require(s.a.engine.session.state == Mirroring && s.a.engine.Status().Right == RightAlone, "mirrored, and alone still")
		s.cut()
		s.run()
		s.require(len(s.a.asks) == 0, "alone: there is nothing to ask for")
		s.a.engine.SetRight(s.now, less)
		s.a.collect()
		s.run()
		s.require(len(s.a.asks) == 1 && s.a.asks[0] == AskAlone, "asked")
		w := s.write(s.a, 0, 1, 2)
		s.run()
		s.require(!w.done, "waiting")
		s.arbitrated()
		s.require(w.answered(block.OK), "answered under the right")
	}
}

// In a split nothing is copied, and both nodes say so.
func TestRule11ASplitIsNeverGuessed(t *testing.T) {
	s := newScript(t)
	s.cut()
	s.arbitrated()
	s.must(s.b.engine.Promote(s.now, RightAlone, "a test", func() {}))
	s.b.collect()
	s.write(s.a, 0, 1, 1)
	s.run()
	s.submit(s.b, block.WriteZeroes, 0, 8, 1, 0)
	s.run()
	s.a.engine.Demote(s.now, block.ShuttingDown, func() {})
	s.b.engine.Demote(s.now, block.ShuttingDown, func() {})
	s.collect()
	s.run()
	before := [2][]byte{s.a.data.Snapshot(), s.b.data.Snapshot()}
	s.connect()
	s.run()
	for i, n := range s.nodes {
		s.require(n.engine.session.state == Disconnected && n.engine.session.mine.Action == ActionSplit, "split at "+n.name)
		s.require(string(before[i]) == string(n.data.Snapshot()), "untouched")
	}
}

// A target is durably inconsistent before the first block, cannot serve, and
// becomes an equal in one atomic write.
func TestRule12ATargetIsInconsistentUntilDone(t *testing.T) {
	s := newScript(t)
	s.cut()
	s.arbitrated()
	s.write(s.a, 0, 2, 1)
	s.run()
	s.connect()
	copied := func(t *block.Task) bool { return onData(t) && t.Op != block.Flush }
	for !s.b.has(copied) {
		s.require(s.a.engine.session.state != Mirroring, "on the way")
		s.do(s.a, nil)
		s.do(s.b, nil)
		s.deliver(s.b)
		s.deliver(s.a)
	}
	h := s.b.header()
	s.require(h.State == bitmap.Inconsistent && h.Intended == s.a.engine.header.Generation, "durably inconsistent")
	s.require(s.b.engine.Promotable() != nil, "not to be promoted")
	s.restart(s.b, true)
	s.require(errors.Is(s.b.engine.Promotable(), ErrInconsistent), "not to be promoted after a restart")
	s.connect()
	s.arbitrated()
	h = s.b.header()
	s.require(h.State == bitmap.Consistent, "consistent")
	s.require(h.Generation == s.a.engine.header.Generation, "of the same generation")
	s.require(errors.Is(s.b.engine.Promotable(), ErrPeerServes), "an equal")
}

// Metadata survives a torn write: the older copy counts, and marks more.
func TestRule13MetadataSurvivesATornWrite(t *testing.T) {
	s := newScript(t)
	s.write(s.a, 0, 1, 1)
	s.run()
	before := s.a.stored()[0]
	s.write(s.a, 40, 1, 2)
	for _, task := range s.a.tasks {
		s.must(s.a.meta.WriteAt(task.Data[:40], task.Offset)) // the beginning of it
	}
	s.must(s.a.meta.Sync())
	s.restart(s.a, true)
	after := s.a.stored()[0]
	s.require(after.Sequence == before.Sequence && after.IntentsSequence == before.IntentsSequence, "the older copy")
	s.require(s.a.engine.dirty.Any(0, 1) && !s.a.engine.dirty.Any(40, 1), "marked as before")
	s.require(!s.b.engine.dirty.Any(40, 1) && s.b.holds(40) == 0, "and no byte of the write was anywhere")
}

// A new session begins when all I/O of the old one has ended, and every frame
// carries its session.
func TestRule14OneSession(t *testing.T) {
	s := newScript(t)
	s.write(s.a, 0, 1, 1)
	s.run()
	s.write(s.a, 0, 1, 2)
	s.deliver(s.b)
	late := s.b.tasks
	s.require(len(late) == 1, "a write of the old session under way at the peer")
	s.b.tasks = nil
	s.connect()
	s.arbitrated()
	s.require(s.b.engine.session.state == Draining && s.a.engine.session.state == Greeting, "waiting for it")
	s.b.tasks = append(s.b.tasks, late...)
	s.arbitrated()
	s.connect() // alpha went on alone meanwhile: what it had said was not true any more
	s.arbitrated()
	s.require(s.a.engine.session.state == Mirroring, "mirrored after it")
	s.compare()

	id := s.b.engine.session.id
	f := Frame{Type: frameFlush, Session: id - 1, Sequence: 1}
	s.require(s.b.engine.frame(s.b.engine.session.data, &f) != nil, "refused: of another session")
}

// A peer that is there and does not acknowledge is lost after the timeout.
func TestRule15AHungPeerIsLost(t *testing.T) {
	s := newScript(t)
	s.write(s.a, 0, 1, 1)
	s.run()
	r := s.write(s.a, 0, 1, 2)
	s.wait(1500*time.Millisecond, func() { // everything goes on but the peer's disk
		s.do(s.a, nil)
		s.deliver(s.b)
		s.deliver(s.a)
		s.arbitrate(s.a)
	})
	s.require(r.answered(block.OK), "acknowledged alone")
	s.require(s.a.engine.session.state == Disconnected, "given up")
	s.require(s.a.engine.dirty.Any(0, 1), "dirty")
}

// A node that serves no longer acknowledges nothing, and says that it is done
// when nothing is under way and both disks are flushed.
func TestDemoteAcknowledgesNothing(t *testing.T) {
	s := newScript(t)
	s.write(s.a, 0, 1, 1)
	s.run()
	w, cold := s.write(s.a, 0, 1, 2), s.write(s.a, 40, 1, 3)
	done := false
	s.a.engine.Demote(s.now, block.ShuttingDown, func() { done = true })
	s.a.collect()
	s.require(!done, "under way")
	s.run()
	s.require(done && w.answered(block.ShuttingDown) && cold.answered(block.ShuttingDown), "refused")
	s.require(s.a.data.Unsynced() == 0 && s.b.data.Unsynced() == 0 && !s.a.header().Serving, "flushed, and not serving")
}

// A secondary serves when nothing of the old primary is under way at its disk.
func TestPromoteWaitsForTheOldPrimary(t *testing.T) {
	s := newScript(t)
	s.write(s.a, 0, 1, 1)
	s.run()
	s.write(s.a, 0, 1, 2)
	s.deliver(s.b)
	late := s.b.tasks
	s.b.tasks = nil
	s.kill(s.a, true)
	s.must(s.b.engine.Promote(s.now, RightAlone, "", func() {}))
	s.b.collect()
	s.run()
	s.require(!s.b.engine.Primary(), "waiting")
	s.b.tasks = late
	s.run()
	s.require(s.b.engine.Primary(), "serving")
}
