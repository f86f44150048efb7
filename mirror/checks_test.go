// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"bytes"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/internal/block"
)

// The checkers: what must hold at every moment, whatever the schedule.

// image is a store as a power cut could leave it.
type image []byte

func (m image) ReadAt(p []byte, offset int64) error {
	copy(p, m[offset:])
	return nil
}

// stored is a node's metadata as a power cut could leave it: all of the cache,
// or nothing.
func (n *simNode) stored() [2]*bitmap.Metadata {
	var all [2]*bitmap.Metadata
	for i, content := range [...]image{n.meta.Durable(), n.meta.Snapshot()} {
		md, err := bitmap.Load(content, int64(len(content)))
		n.pair.must(err)
		for _, region := range md.Regions {
			run := md.Layout.Region(region)
			md.Bits.Set(run.First, run.Count)
		}
		all[i] = md
	}
	return all
}

// cover is the invariant: every block whose durable content may differ between
// the nodes is dirty, or inside an intent, on stable storage of one of them.
// Whatever the caches hold may survive or not, on each disk by itself.
func (p *pair) cover() {
	var marked [2][2]*bitmap.Metadata
	for i, n := range p.nodes {
		marked[i] = n.stored()
		for _, md := range marked[i] {
			switch md.Header.State {
			case bitmap.Blank, bitmap.Fresh, bitmap.Failed:
				return // never met, or to be replaced: all of it is copied
			}
		}
	}
	a := [...][]byte{p.nodes[0].data.Durable(), p.nodes[0].data.Snapshot()}
	b := [...][]byte{p.nodes[1].data.Durable(), p.nodes[1].data.Snapshot()}
	for first := int64(0); first < simSize/block.Size; first++ {
		if p.rotten[first] || covered(marked[0], first) || covered(marked[1], first) {
			continue
		}
		at, end := first*block.Size, (first+1)*block.Size
		for _, x := range a {
			for _, y := range b {
				if !bytes.Equal(x[at:end], y[at:end]) {
					p.fail("cover: block %d may differ and nobody would know; %s; %s", first, p.describe(0), p.describe(1))
				}
			}
		}
	}
	p.checks++
}

// covered reports whether a node finds a block dirty in either case.
func covered(stored [2]*bitmap.Metadata, first int64) bool {
	return stored[0].Bits.Any(first, 1) && stored[1].Bits.Any(first, 1)
}

// fence is the invariant: a node that acknowledges what its peer lacks durably
// has a generation that the peer does not have, or the peer is durably
// inconsistent and cannot serve.
func (p *pair) fence(r *clientRequest) {
	e := r.node.engine
	if !r.Op.Changes() || e == nil || r.version%16 != 0 && !r.client.pair.strict {
		return // not each: it is slow
	}
	who, other := r.node, r.node.peer()
	switch e.mode() {
	case modeAlone:
	case modeRemote:
		who, other = other, who // it is the host that goes on alone
	default:
		return
	}
	own, peer := who.stored()[0].Header, other.stored()
	for _, md := range peer {
		if md.Header.State == bitmap.Consistent && md.Header.Generation == own.Generation {
			p.fail("fence: %s acknowledges alone in generation %v, which its peer has too", who.name, own.Generation)
		}
	}
}

// empty asserts that a quiet engine holds nothing (rule 15).
func (p *pair) empty(n *simNode) {
	if what, held := n.engine.Held(); held != 0 {
		p.fail("%s is quiet and holds %d %s", n.name, held, what)
	}
}
