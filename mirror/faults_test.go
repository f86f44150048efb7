// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"encoding/binary"
	"errors"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/internal/block/blocktest"
)

var errMedium = errors.New("medium error")

// fault breaks something.
func (p *pair) fault() {
	n := p.nodes[p.rng.IntN(2)]
	switch p.rng.IntN(20) {
	case 0, 1, 2:
		p.kill(n, false)
	case 3, 4, 5:
		p.kill(n, true)
		if p.rng.IntN(2) == 0 && !p.forced {
			p.prim(n.peer()) // at once, whatever its disk still has to do
		}
	case 6, 7:
		p.cut()
	case 8, 9:
		p.noAnswer = !p.noAnswer
	case 10, 11:
		if n.engine == nil {
			n.boot()
		}
	case 12:
		p.connect()
	case 13:
		p.halfOpen(n)
	case 14:
		p.delay()
	case 15:
		p.corrupt()
	case 16:
		p.haunt()
	default:
		p.breakDisk(n)
	}
}

// halfOpen cuts the link and tells one node only; the other has to notice.
func (p *pair) halfOpen(told *simNode) {
	for _, w := range p.wires {
		w.dead = true
	}
	if told.engine != nil {
		p.log("half-open, %s knows", told.name)
		told.engine.Disconnect(p.now, "link cut")
		told.collect()
	}
}

// delay lets nothing pass on one wire for a while.
func (p *pair) delay() {
	if len(p.wires) > 0 {
		w := p.wires[p.rng.IntN(len(p.wires))]
		w.until = p.now + 1 + p.now%1_500_000_000
		p.log("%s hears nothing on one wire until %v", w.toN.name, w.until)
	}
}

// corrupt changes one bit under way: the session may end, nothing else.
func (p *pair) corrupt() {
	for _, w := range p.wires {
		if len(w.bytes) > 0 {
			p.log("a bit to %s is changed", w.toN.name)
			w.bytes[p.rng.IntN(len(w.bytes))] ^= 1 << p.rng.IntN(8)
			return
		}
	}
}

// haunt puts a write of an old session on a data wire that is between frames.
func (p *pair) haunt() {
	for _, w := range p.wires {
		if w.from.bulk || w.from.closed || w.to.closed || len(w.bytes) > 0 || len(w.from.Output()) > 0 || w.toN.old == 0 {
			continue
		}
		p.log("%s hears from an old session", w.toN.name)
		record := make([]byte, block.RecordHeader+sector)
		block.PutRecord(record, block.Write, 0, 0, int64(p.rng.IntN(sectors))*sector, sector)
		for i := block.RecordHeader; i < len(record); i += 8 {
			binary.BigEndian.PutUint64(record[i:], 0xdead<<32)
		}
		b := append(make([]byte, frameHeader), record...)
		sealFrame(b, &Frame{Type: frameBatch, Session: w.toN.old, Sequence: 1, Count: 1})
		w.bytes = b
		return
	}
}

// breakDisk makes a disk fail, or hang.
func (p *pair) breakDisk(n *simNode) {
	if n.engine == nil || p.forced {
		return
	}
	if !n.peer().whole && p.rng.IntN(4) > 0 {
		return // losing the only copy leaves little to check
	}
	target := block.Target(p.rng.IntN(2))
	d := [...]*blocktest.CrashDisk{n.data, n.meta}[target]
	op := [...]block.Op{block.Write, block.Flush, block.Read}[p.rng.IntN(3-int(target))]
	kind := p.rng.IntN(4)
	p.log("disk %d of %s breaks: %s, kind %d", target, n.name, op, kind)
	switch kind {
	case 0:
		n.hung[target], n.stuck = true, p.now
	case 1:
		d.Inject(blocktest.Fault{Match: blocktest.On(op), Times: 1, Err: errMedium, Partial: sector})
	case 2:
		d.Inject(blocktest.Fault{Match: blocktest.On(op), Err: errMedium})
	case 3:
		d.Inject(blocktest.Fault{Err: errMedium}) // all of it
	}
}

// replace puts a new disk, with whatever is on it, in the place of one that
// failed.
func (n *simNode) replace() {
	p := n.pair
	p.log("the disk of %s is replaced", n.name)
	if !n.peer().whole {
		p.forced = true
	}
	n.whole, n.kept = false, false
	n.data = blocktest.NewCrashDisk(simSize)
	rest := make([]byte, simSize)
	for i := 0; i < len(rest); i += sector {
		p.client.version++ // older than what clients write from now on
		v := p.client.version
		for j := 0; j < sector; j += 8 {
			binary.BigEndian.PutUint64(rest[i+j:], v)
		}
	}
	n.data.Restore(rest)
	n.create(bitmap.Fresh)
}

// primforce is the operator's last resort when the only whole copy is gone: he
// takes what is left, and knows what he loses.
func (p *pair) primforce() {
	n := p.nodes[0]
	if o := p.nodes[1]; rank(o) > rank(n) {
		n = o
	}
	p.log("primforce %s", n.name)
	p.cut()
	if o := n.peer(); rank(o) == 0 { // it may come back to life: its history ends here
		p.kill(o, false)
		o.replace()
		o.boot()
	}
	n.data.Heal()
	n.meta.Heal()
	p.must(n.data.Sync())
	p.model.reset(n.data.Snapshot())
	p.record = record{p.record.epoch + 1, n.id, true}
	p.must(n.engine.Promote(p.now, RightAlone, "operator", func() {}))
	p.forced = false
	n.whole, n.kept = true, true
	p.holders()
	n.collect()
}

// rank is what a copy is worth.
func rank(n *simNode) int {
	switch n.engine.contentState() {
	case bitmap.Consistent:
		return 3
	case bitmap.Inconsistent:
		return 2
	case bitmap.Fresh:
		return 1
	}
	return 0
}
