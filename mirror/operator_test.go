// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"errors"
	"strings"
	"testing"

	"github.com/twinbd/twinbd/internal/block"
)

// A resync that an operator asks for copies what is marked, or everything, from
// the node that serves, and is refused where it would do neither.
func TestOperatorsResync(t *testing.T) {
	for name, full := range map[string]bool{"marked": false, "full": true} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t)
			s.write(s.a, 7, 2, 1)
			s.run()
			s.submit(s.a, block.Flush, 0, 0, 0, 0)
			s.run()
			s.require(errors.Is(s.a.engine.Resync(s.now, false), ErrClean), "refused: nothing is marked")
			s.require(s.b.engine.Resync(s.now, full) != nil, "refused at the secondary")
			s.b.data.FlipBit(7*block.Size+9, 3)
			s.b.data.FlipBit(30*block.Size, 0)
			if !full {
				s.must(s.a.engine.Verify(s.now, false))
				s.a.collect()
				s.run()
				s.require(s.a.engine.dirty.Count() == 2 && s.a.engine.session.state == Mirroring, "found, and not repaired")
			}

			s.must(s.a.engine.Resync(s.now, full))
			s.collect()
			s.require(s.a.engine.session.state == Disconnected, "beginning anew")
			s.require(errors.Is(s.a.engine.Resync(s.now, full), ErrNotMirroring), "refused: under way")
			s.connect()
			s.arbitrated()
			want := int64(2)
			if full {
				want = s.a.engine.dirty.Blocks()
			}
			status := s.a.engine.Status()
			s.require(status.Session == Mirroring && status.DirtyBlocks == 0 && status.Source, "mirrored")
			s.require(status.Resync.Total == want && status.Resync.Done == want, "copied: what was asked for, and no more")
			s.compare()
		})
	}
}

// The last word of a node tells its peer why the session ends; without a
// session there is nobody to tell.
func TestBye(t *testing.T) {
	s := newScript(t)
	s.a.engine.Bye(s.now, "alpha\x1b[2J stops\n"+strings.Repeat("!", 400))
	s.require(s.a.engine.session.state == Mirroring, "still mirrored: the caller disconnects")
	s.deliver(s.b)
	s.require(s.b.engine.session.state == Disconnected, "ended at the peer")
	reason := s.b.engine.Status().Reason
	s.require(strings.HasPrefix(reason, "bye: alpha ends the session: alpha[2J stops!!!"), "the reason: "+reason)
	s.require(len(reason) < 400, "a reason of bounded length")

	s.cut()
	s.a.engine.Bye(s.now, "nobody hears it")
	s.connect()
	s.a.engine.Bye(s.now, "before the nodes have met")
	s.arbitrated()
	s.require(s.a.engine.session.state == Mirroring && s.b.engine.session.state == Mirroring, "mirrored")
}
