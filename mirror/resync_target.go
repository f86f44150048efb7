// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"encoding/binary"
	"encoding/json"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/internal/block"
)

// The target's half of a resync; the copies themselves are taken by follower.go.

// coarseAbove is the number of dirty blocks above which the target names whole
// regions, so that the message stays small however scattered they are.
const coarseAbove = 1 << 20

// sendDirty tells the source which blocks this node holds for different.
func (r *resync) sendDirty() {
	e := r.engine
	const perFrame = 8192
	list := make([]byte, 0, 8*perFrame)
	flush := func(flags uint8) {
		e.session.data.pushCopy(&Frame{Type: frameDirty, Flags: flags, Session: e.session.id, Count: uint32(len(list) / 8)}, list)
		list = list[:0]
	}
	if !r.full {
		grain := int64(1)
		if e.dirty.Count() > coarseAbove {
			grain = e.meta.layout.RegionSize() / block.Size
		}
		for at := int64(0); ; {
			first, count, ok := e.dirty.Next(at, maxExtentCount)
			if !ok {
				break
			}
			end := min((first+count+grain-1)/grain*grain, e.dirty.Blocks())
			first = first / grain * grain
			list = binary.BigEndian.AppendUint64(list, uint64(makeExtent(first, end-first)))
			at = end
			if len(list) == cap(list) {
				flush(0)
			}
		}
	}
	flush(flagLast)
}

// started makes this node a target: durably inconsistent before the first
// block (rule 12).
func (r *resync) started(f *Frame) error {
	e := r.engine
	if e.session.state != Comparing || r.source || !e.mayFollow() {
		return errSequence
	}
	var m startMessage
	if err := json.Unmarshal(f.Payload, &m); err != nil || m.Generation.IsZero() {
		return errPayload
	}
	r.id = m.ID
	h := &e.header
	h.State, h.Intended, h.VolumeID, h.ResyncID, h.LastPrimary = bitmap.Inconsistent, m.Generation, m.VolumeID, m.ID, false
	if mutated("a target is inconsistent") || mutated("a target adopts the generation at the end") {
		h.State, h.Intended = bitmap.Consistent, bitmap.Generation{}
	}
	if mutated("a target adopts the generation at the end") {
		h.Generation, h.Base = m.Generation, bitmap.Generation{}
	}
	e.dirty.Clear(0, e.dirty.Blocks())
	e.forgetIntents()
	e.meta.wantPages(nil)
	session := e.session.id
	e.raiseMoment() // the source knows it before it forgets a mark
	e.meta.wantHeader(func() {
		if e.session.id == session && e.session.state == Comparing {
			e.become(Resyncing, "target of "+e.cfg.Peer)
			e.session.data.push(&Frame{Type: frameReady, Session: session, Sequence: r.id}, nil)
		}
	})
	return nil
}

// forgetIntents drops the intents of a node whose marks the source has taken.
func (e *Engine) forgetIntents() {
	var gone []uint32
	e.marks.intents.Each(func(i *bitmap.Entry) bool {
		if i.InFlight == 0 {
			gone = append(gone, i.Region)
		}
		return true
	})
	for _, region := range gone {
		e.marks.intents.Remove(region)
	}
	e.meta.wantIntents()
}

// finishing: no block differs. One atomic write makes this node an equal.
func (r *resync) finishing(f *Frame) error {
	e := r.engine
	var m startMessage
	if e.session.state != Resyncing || r.source || f.Sequence != r.id {
		return errSequence
	}
	if err := json.Unmarshal(f.Payload, &m); err != nil || m.Generation.IsZero() {
		return errPayload
	}
	h := &e.header
	h.State, h.Generation, h.Generations = bitmap.Consistent, m.Generation, m.Count
	h.Intended, h.Base = bitmap.Generation{}, bitmap.Generation{}
	h.Ancestors = [bitmap.MaxAncestors]bitmap.Generation{}
	copy(h.Ancestors[:], m.Ancestors)
	session := e.session.id
	e.meta.wantHeader(func() {
		if e.session.id == session && e.session.state == Resyncing {
			e.session.data.push(&Frame{Type: frameFinishAck, Session: session, Sequence: r.id}, nil)
			e.becomeMirroring("resync from " + e.cfg.Peer + " is done")
		}
	})
	return nil
}
