// SPDX-License-Identifier: Apache-2.0

package node

import (
	"fmt"

	"github.com/twinbd/twinbd/failover"
)

// What becomes of the record goes into the event log, so that a takeover can be
// taken apart by its times: asked for, granted, every volume primary.

// asks tells that this node wants the record changed: once for each change,
// however often it has to ask.
func (s *service) asks(q *failover.Request) {
	want := failover.View{Epoch: q.Replaces, Holder: q.Holder, Mode: q.Mode}
	if want == s.sought {
		return
	}
	s.sought = want
	s.event("ask", fmt.Sprintf("epoch %d", q.Replaces), fmt.Sprintf("%s, %v", q.Holder, q.Mode), "the witness is asked", "")
}

// learned tells that the record, as far as this node durably knows, has become
// another.
func (s *service) learned(old, now failover.View) {
	if old == now {
		return
	}
	s.sought = failover.View{}
	s.event("record", fmt.Sprint(old.Epoch), fmt.Sprint(now.Epoch), fmt.Sprintf("the record names %s, %v", now.Holder, now.Mode), "")
}
