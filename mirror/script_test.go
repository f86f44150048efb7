// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"encoding/binary"
	"time"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/internal/block"
)

// A script is a pair in which nothing moves by itself: a test says which bytes
// arrive and which tasks are done, and looks at what is there in between. It
// begins mirrored and flushed, with alpha serving in `pair`.
type script struct {
	*pair
	a, b *simNode
}

func newScript(t tester, with ...func(*pair)) *script {
	p := newPair(t, 1, with...)
	s := &script{pair: p, a: p.nodes[0], b: p.nodes[1]}
	p.connect()
	s.run()
	s.require(s.a.engine.session.state == Mirroring && s.b.engine.session.state == Mirroring, "mirrored")
	s.a.engine.SetRight(p.now, RightPair)
	s.run()
	return s
}

func (s *script) require(ok bool, what string) {
	s.t.Helper()
	if !ok {
		s.fail("not %s\n%s\n%s", what, s.describe(0), s.describe(1))
	}
}

// submit gives a request to a node; of a write the content is version.
func (s *script) submit(n *simNode, op block.Op, flags block.Flags, first, count int64, version uint64) *clientRequest {
	r := s.request(n, op, flags, first*block.Size, count*block.Size, version)
	s.give(n, r)
	return r
}

// request makes one of a range of bytes.
func (s *script) request(n *simNode, op block.Op, flags block.Flags, offset, length int64, version uint64) *clientRequest {
	r := &clientRequest{client: s.client, node: n, version: version}
	if s.client.open == nil {
		s.client.open = make(map[*clientRequest]bool)
	}
	s.client.open[r] = true
	r.Owner, r.Op, r.Flags, r.Offset, r.Length = r, op, flags, offset, length
	switch {
	case op == block.Read:
		r.Data = make([]byte, r.Length)
	case op.Changes():
		r.Record = make([]byte, block.RecordHeader)
		if op == block.Write {
			r.Record = append(r.Record, make([]byte, r.Length)...)
			r.Data = r.Record[block.RecordHeader:]
			for i := 0; i < len(r.Data); i += 8 {
				binary.BigEndian.PutUint64(r.Data[i:], version)
			}
		}
		block.PutRecord(r.Record, op, flags, 0, r.Offset, r.Length)
		r.each(func(k int) { s.model.begin(k, version) })
	case op == block.BlockStatus:
		r.Contexts = block.ContextDirty | block.ContextAllocation
		r.Extents = [2][]block.Extent{make([]block.Extent, 0, 4), make([]block.Extent, 0, 4)}
	case op == block.Flush:
		r.Offset, r.Length, r.snap = 0, 0, s.model.acked
	}
	return r
}

func (s *script) give(n *simNode, r *clientRequest) {
	n.engine.Submit(s.now, &block.Batch{Requests: []*block.Request{&r.Request}})
	n.collect()
}

func (s *script) write(n *simNode, first, count int64, version uint64) *clientRequest {
	return s.submit(n, block.Write, 0, first, count, version)
}

// deliver brings to n all that its peer has to say, and reports whether there
// was anything.
func (s *script) deliver(n *simNode) (any bool) {
	for _, w := range s.wires {
		for w.toN == n && !w.to.closed && (!w.from.closed || len(w.bytes) > 0) {
			if out := w.from.Output(); len(out) > 0 {
				w.bytes = append(w.bytes, out[0]...)
				w.from.Sent(len(out[0]))
			}
			k := copy(w.to.Room(), w.bytes)
			if k == 0 {
				break
			}
			w.bytes = w.bytes[k:]
			_ = w.to.Received(k)
			any = true
		}
	}
	s.collect()
	return any
}

// do carries out the tasks of a node that are there now, do not hang, and match;
// nil matches all. It returns how many.
func (s *script) do(n *simNode, match func(*block.Task) bool) (done int) {
	if n.engine == nil {
		return 0
	}
	tasks := n.tasks
	n.tasks = nil
	for _, t := range tasks {
		if n.hung[t.Target] || match != nil && !match(t) {
			n.tasks = append(n.tasks, t)
			continue
		}
		done++
		t.Err = n.carryOut(t)
		n.engine.Finished(s.now, t)
	}
	n.collect()
	return done
}

// run lets everything happen but what the arbiter is asked.
func (s *script) run() {
	for s.do(s.a, nil)+s.do(s.b, nil) > 0 || s.deliver(s.a) || s.deliver(s.b) {
	}
}

// arbitrated lets the arbiter answer, too.
func (s *script) arbitrated() {
	for s.run(); len(s.a.asks)+len(s.b.asks) > 0; s.run() {
		s.arbitrate(s.a)
		s.arbitrate(s.b)
	}
}

// restart ends a node's process, with power or not, and starts it anew.
func (s *script) restart(n *simNode, power bool) {
	s.kill(n, power)
	n.boot()
}

func onData(t *block.Task) bool     { return t.Target == block.Data }
func onMetadata(t *block.Task) bool { return t.Target == block.Metadata }

// has reports whether a node waits for a disk task that matches.
func (n *simNode) has(match func(*block.Task) bool) bool {
	for _, t := range n.tasks {
		if match(t) {
			return true
		}
	}
	return false
}

// speaks reports whether the data link has something to send.
func (n *simNode) speaks() bool { return len(n.engine.session.data.Output()) > 0 }

// block is a version that a disk holds in a block, as its sectors agree on it.
func (n *simNode) holds(first int64) uint64 {
	return version(n.data.Snapshot()[first*block.Size : (first+1)*block.Size])
}

// header is what is durable of a node.
func (n *simNode) header() bitmap.Header { return n.stored()[0].Header }

func (r *clientRequest) answered(s block.Status) bool { return r.done && r.Status == s }

// hang makes the disks of a node do nothing from now on.
func (s *script) hang(n *simNode) { n.hung, n.stuck = [2]bool{true, true}, s.now }

// wait lets time pass in steps of a tick, with everything else going on.
func (s *script) wait(d time.Duration, between func()) {
	for end := s.now + d; s.now < end; {
		s.now += TickEvery
		s.tick(s.a)
		s.tick(s.b)
		between()
	}
}
