// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"time"

	"github.com/twinbd/twinbd/bitmap"
)

// Counters count since the engine was made.
type Counters struct {
	Reads, Writes, Flushes uint64
	ReadBytes, WriteBytes  int64
	SentBytes              int64 // records sent to the peer, by the data connection
	ResyncedBytes          int64 // copied to the peer by resyncs
	ReadErrors             uint64
}

// Status is what an engine knows of itself, for people and for whoever decides
// who serves. It is a copy.
type Status struct {
	Volume  string
	Size    int64
	Primary bool
	Right   Right

	Session     SessionState
	Reason      string // why the session is as it is
	Since       time.Duration
	Split       bool // when last compared, both nodes had writes that the other lacks
	Unrelated   bool // … and the disks have no history in common
	Whole       bool // … and any block may differ: marks say nothing of it
	PeerPrimary bool
	PeerState   string

	State           bitmap.State // of the local disk's content
	DiskFailed      string       // why, or empty
	DiskSilent      string       // for how long the last good copy has owed an answer, or empty
	Generation      bitmap.Generation
	GenerationCount uint64
	Base            bitmap.Generation
	Forced          string // who forced this copy to serve, and when; empty if nobody did
	KeptInStep      bool
	DirtyBlocks     int64
	Intents         int
	RegionSize      int64
	Frozen          int // requests that wait for a right or a peer
	InFlight        int

	Source   bool // of the resync under way or last done
	Equals   bool // the nodes compare two whole disks of one generation: who is preferred is settled, and either could serve
	Resync   Progress
	Verify   Progress
	Verified string // how the last verify ended
	Counters Counters
}

// Status returns a snapshot.
func (e *Engine) Status() Status {
	s := Status{
		Volume: e.cfg.Volume, Size: e.size, Primary: e.primary, Right: e.right,
		Session: e.session.state, Reason: e.session.reason, Since: e.session.since,
		Split: e.session.split, Unrelated: e.session.unrelated, Whole: e.session.whole(), State: e.contentState(), DiskFailed: e.localWhy, DiskSilent: e.silent,
		Generation: e.header.Generation, GenerationCount: e.header.Generations, Base: e.header.Base,
		Forced: e.header.Forced, KeptInStep: e.session.keptInStep, DirtyBlocks: e.dirty.Count(),
		Intents: e.marks.intents.Len(), RegionSize: e.meta.layout.RegionSize(),
		Frozen: e.frozen.length + e.held.length, InFlight: e.ops.used,
		Source: e.resync.source, Equals: e.equals(), Resync: e.resync.progress, Verify: e.verify.progress, Verified: e.verify.last,
		Counters: e.counters,
	}
	if e.session.greeted {
		s.PeerPrimary, s.PeerState = e.session.received.Primary, e.session.received.State
	}
	return s
}

// Dirty reports whether one of count blocks from first on is marked as different,
// in the memory of this process. A simulation asks it, to hold the marks against
// what is true; intents and what the peer has not flushed are not in it.
func (e *Engine) Dirty(first, count int64) bool { return e.dirty.Any(first, count) }
