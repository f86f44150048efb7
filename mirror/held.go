// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/internal/block"
)

// Held says what a mirroring engine holds on to of which it needs nothing while
// nothing is under way: the first kind, and how much; 0 when there is none (rule
// 15). It is for simulations, which find out what leaks.
func (e *Engine) Held() (what string, n int) {
	w := &e.follower
	inIntents := 0
	e.marks.intents.Each(func(i *bitmap.Entry) bool { inIntents += int(i.InFlight); return true })
	for _, held := range [...]struct {
		what string
		n    int
	}{
		{"operations", e.ops.used}, {"locks", e.locks.all}, {"narrow locks", e.locks.narrow},
		{"run", len(e.run)}, {"freed locks", len(e.free)}, {"frozen", e.frozen.length}, {"held", e.held.length},
		{"stalled", e.window.stalled.length}, {"starved", e.marks.starved.length}, {"waiting", e.marks.waiting.length},
		{"unacknowledged", e.window.count}, {"window", int(e.window.next - e.window.oldest)},
		{"flushing", e.rounds.waiting.length + e.rounds.current.length}, {"waiting for rounds", len(e.rounds.then) + len(e.rounds.thenCurrent)},
		{"waiting for metadata", len(e.meta.after)}, {"writes in flight in intents", inIntents},
		{"bytes on their way to the disks", int(e.backlog.inFlight.bytes)}, {"bytes being flushed", int(e.backlog.closing.bytes)},
		{"tasks for the peer", w.tasks + w.bulk}, {"answers to the peer", len(w.acks) + len(w.flushes) + len(w.copies)},
		{"copies", len(e.resync.runs) + e.resync.reads}, {"sums", len(e.verify.runs) + e.verify.reads},
		{"remote reads", len(e.remote.reads) + e.remote.later.length}, {"bytes of remote reads", int(e.remote.asking + e.remote.served)},
		{"received memory", max(0, e.session.data.pools[0].Used()-block.ChunkSize)},
		{"received bulk memory", max(0, e.session.bulk.pools[0].Used()-2*block.ChunkSize)},
		{"sent memory", max(0, e.session.data.pools[1].Used()-block.ChunkSize)},
		{"sent bulk memory", max(0, e.session.bulk.pools[1].Used()-2*block.ChunkSize)},
	} {
		if held.n != 0 {
			return held.what, held.n
		}
	}
	return "", 0
}
