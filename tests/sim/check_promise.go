// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"encoding/binary"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/failover"
	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/mirror"
)

// What an engine and a node promise with an answer: Fence, Ack and Flush.

// fence is Fence: nobody tells a client anything whom the record does not name, or
// who does not hold the other's promise; and nobody acknowledges what its peer
// lacks without the right to be alone, and a generation of its own.
func (w *world) fence(r *request) {
	v := r.session.volume
	n := v.process.node
	d := v.process.machine.Durable()
	promised := d.Held > 0 && w.nodes[1-n.id].durable().Promise == d.Held
	holds := w.seen.Holder == n.name && w.seen.Epoch > 0
	remote := v.process.remote() && w.seen.Holder == n.peer().name && w.seen.Mode == failover.Alone
	if !holds && !promised && !remote {
		w.fail("fence: %s answers %s of version %d, and the record is %v; it holds promise %d", n.name, r.Op, r.version, w.seen, d.Held)
	}
	if !r.Op.Changes() || !r.lone {
		return
	}
	if w.seen.Mode == failover.Pair && holds && !promised {
		w.fail("fence: %s acknowledges version %d, which its peer lacks, and the record is %v", n.name, r.version, w.seen)
	}
}

// remote reports whether a disk here has failed: then the record names the peer,
// from whose disk the service is served (rule 18).
func (p *process) remote() bool {
	for _, v := range p.volumes {
		if v.engine.Status().DiskFailed != "" {
			return true
		}
	}
	return false
}

// durable is what a node has stored of itself, whether or not it runs.
func (n *node) durable() failover.NodeState {
	if p := n.process; p != nil {
		return p.file.State()
	}
	return n.last
}

// promised holds an engine to its word at the moment at which it gives it.
func (r *request) promised() {
	v := r.session.volume
	w, n := v.ledger.world, v.process.node
	if st := v.engine.Status(); (r.Op == block.Flush || r.Op.Changes()) && st.DiskFailed != "" && (w.seen.Holder != n.peer().name || w.seen.Mode != failover.Alone) {
		w.fail("fence: %s answers %s without its own disk, and the record is %v", n.name, r.Op, w.seen)
	}
	switch {
	case r.Op == block.Read:
		l := v.ledger
		r.read = make([]uint64, r.end()-r.first())
		for i := range r.read {
			version, ok := l.possible(r.first()+i, binary.BigEndian.Uint64(r.Data[i*sector:]))
			if !ok {
				version = impossible
			}
			r.read[i] = version
		}
	case r.Op == block.Flush:
		r.durable(func(s int) uint64 { return v.ledger.ackedBy(s, r.acks) }, v.ledger.unflush)
	case r.Op.Changes():
		r.taken()
	}
}

// taken is Ack: the write is on both disks, or its peer is not going to serve.
func (r *request) taken() {
	v, l := r.session.volume, r.session.client.ledger
	n := v.process.node
	mine, theirs := v.store, n.peer().stores[l.id]
	alone, remote := false, false
	for s := r.first(); s < r.end(); s++ {
		if l.rotten[s/perBlock] {
			continue
		}
		if !l.has(s, mine.data.current[s], r.version) {
			remote = true
		}
		if !l.has(s, theirs.data.current[s], r.version) {
			alone = true
		}
	}
	switch {
	case alone && remote && n.peer().cut >= r.at:
		r.doubt = true // it had it, and lost its power before its word was heard
	case alone && remote:
		l.world.fail("ack: %s acknowledges version %d, which no disk has", n.name, r.version)
	case remote && mine.contents() != bitmap.Failed && v.engine.Status().DiskFailed == "":
		l.world.fail("ack: %s acknowledges version %d, which its own disk lacks", n.name, r.version)
	case alone && n.peer().cut >= r.at: // it had it, and lost its power since
	case alone:
		r.lone = true
		v.parts()
		a, b := mine.stored()[0].Header, theirs.stored()
		for _, m := range b {
			if m.Header.State == bitmap.Consistent && m.Header.Generation == a.Generation {
				l.world.fail("fence: %s acknowledges version %d alone, in the generation %v that its peer has too", n.name, r.version, a.Generation)
			}
		}
	}
	if r.Flags&block.FUA != 0 {
		sectors := make([]int, 0, r.end()-r.first())
		for s := r.first(); s < r.end(); s++ {
			sectors = append(sectors, s)
		}
		r.durable(func(int) uint64 { return r.version }, sectors)
	}
}

// contents is what the disk is worth, as its metadata says.
func (s *store) contents() bitmap.State { return s.stored()[1].Header.State }

// parts: a node that served has lost its equal, and acknowledges the first write
// alone. What both had acknowledged must survive its power cut from here on.
func (v *volume) parts() {
	l, d := v.ledger, v.store.data
	for _, s := range l.unflush {
		if k := l.ackedBy(s, v.apart); k > 0 && !l.has(s, d.durable[s], k) && !l.rotten[s/perBlock] {
			l.world.fail("parts: %s goes on alone, and has not flushed version %d of sector %d of volume %d", v.process.node.name, k, s, l.id)
		}
	}
	v.apart = 0
}

// durable is Flush: versions of sectors are durable on every disk that counts:
// the one that serves, and the other's while the two are equals.
func (r *request) durable(version func(s int) uint64, sectors []int) {
	v, l := r.session.volume, r.session.client.ledger
	n := v.process.node
	st := v.engine.Status()
	disks := make([]*store, 0, 2)
	if st.DiskFailed == "" {
		disks = append(disks, v.store)
	}
	if st.Session == mirror.Mirroring || st.Session == mirror.Resyncing || st.DiskFailed != "" {
		disks = append(disks, n.peer().stores[l.id])
	}
	for _, d := range disks {
		// What is still to be copied is not there yet, and will not be if the target has
		// failed meanwhile, of which nobody has heard; nor can that disk serve.
		copying := st.Session == mirror.Resyncing && d.stored()[0].Header.State != bitmap.Consistent
		for _, s := range sectors {
			want := version(s)
			if want > 0 && !l.has(s, d.data.durable[s], want) && !l.rotten[s/perBlock] && !copying {
				l.world.fail("flush: %s says that version %d of sector %d (block %d) of volume %d is durable; on %s it is %d",
					n.name, want, s, s/perBlock, l.id, d.node.name, d.data.durable[s])
			}
		}
	}
}
