// SPDX-License-Identifier: Apache-2.0

package mirror

import "time"

// moments let a node notice that the peer's disk was put back to an older copy
// of itself: a snapshot that was restored says of itself just what a disk says
// that lost its power when the snapshot was taken. So each node counts, in its
// header, and tells the peer, which keeps the number (rule 13). It counts only
// while both are known to have the same, or while one is copied to: a disk that
// was put back cannot catch up before the two have met and it was noticed.
//
// The number is durable here before the peer hears it, so what the peer has
// heard is never ahead of a disk that was left alone. Between two numbers a
// snapshot is not told from a power cut: for momentEvery, when there is anything
// to be lost at all.
type moments struct {
	due bool // something has changed on this disk since the last one
	at  time.Duration
}

// momentEvery is how often the moment is raised while blocks change.
const momentEvery = 10 * time.Second

// featureMoment: the peer keeps what frameMoment tells it.
const featureMoment = "moment"

// raiseMoment counts, and tells the peer when that is durable.
func (e *Engine) raiseMoment() {
	if !e.has(featureMoment) {
		return
	}
	e.moments = moments{at: e.now}
	e.header.Moment++
	moment, session := e.header.Moment, e.session.id
	e.meta.wantHeader(func() {
		if e.session.id == session && e.session.greeted {
			e.session.data.push(&Frame{Type: frameMoment, Session: session, Sequence: moment}, nil)
		}
	})
}

// tick raises the moment when it is time.
func (m *moments) tick(e *Engine) {
	s := &e.session
	if m.due && e.now-m.at >= momentEvery && (s.state == Mirroring || s.state == Resyncing) {
		e.raiseMoment()
	}
}

// peerMoment keeps the peer's moment.
func (e *Engine) peerMoment(f *Frame) error {
	switch e.session.state {
	case Comparing, Resyncing, Mirroring, Hosting:
	default:
		return errSequence
	}
	if e.header.PeerMoment != f.Sequence {
		e.header.PeerMoment = f.Sequence
		e.meta.wantHeader(nil)
	}
	return nil
}
