// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"fmt"
	"slices"

	"github.com/twinbd/twinbd/internal/block"
)

// frame takes one frame of link l. An error ends the session.
func (e *Engine) frame(l *Link, f *Frame) error {
	s := &e.session
	if l.bulk == isDataFrame(f.Type) {
		return fmt.Errorf("%s: %w", f.Type, errSequence)
	}
	if f.Type == frameHello {
		return e.greeted(f)
	}
	if s.state == Draining || !s.greeted && f.Type != frameBye || s.greeted && f.Session != s.id && !mutated("a frame carries its session") {
		return fmt.Errorf("%s of another session: %w", f.Type, errSequence)
	}
	s.heard = e.now
	if err := e.dispatch(f); err != nil {
		return fmt.Errorf("%s: %w", f.Type, err)
	}
	return nil
}

// isDataFrame reports on which of the two connections a frame travels.
func isDataFrame(t frameType) bool {
	switch t {
	case frameCopy, frameCopyAck, frameSum, frameSumReply:
		return false
	}
	return true
}

func (e *Engine) dispatch(f *Frame) error {
	switch f.Type {
	case frameVerdict:
		return e.verdictReceived(f)
	case frameBye:
		return fmt.Errorf("%s ends the session: %s", e.cfg.Peer, printable(f.Payload))
	case framePing:
		e.session.data.push(&Frame{Type: framePong, Session: e.session.id}, nil)
		return nil
	case framePong:
		return nil
	case frameBatch:
		return e.follower.batch(f)
	case frameAck:
		return e.acks(f)
	case frameFlush:
		return e.follower.flush(f)
	case frameFlushAck:
		return e.rounds.peerDone(e, f.Sequence, block.Status(f.Count))
	case frameDirty:
		return e.resync.dirty(f)
	case frameStart:
		return e.resync.started(f)
	case frameReady:
		return e.resync.ready(f)
	case frameCopy:
		return e.follower.copy(f)
	case frameCopyAck:
		return e.resync.copied(f)
	case frameFinish:
		return e.resync.finishing(f)
	case frameFinishAck:
		return e.resync.finished(f)
	case frameSum:
		return e.follower.sum(f)
	case frameSumReply:
		return e.verify.reply(f)
	case frameGone:
		return e.remote.gone(e, f)
	case frameGoneAck:
		return e.remote.goneAck(e, f)
	case frameRead:
		return e.remote.readFor(e, f)
	case frameRole:
		return e.peerRole(f)
	case frameMoment:
		return e.peerMoment(f)
	case frameReadReply:
		return e.remote.readReply(e, f)
	}
	return errSequence
}

// acks takes the outcomes of changes that the peer has carried out.
func (e *Engine) acks(f *Frame) error {
	if len(f.Payload)%ackRangeSize != 0 {
		return errPayload
	}
	for p := f.Payload; len(p) > 0; p = p[ackRangeSize:] {
		if err := e.window.acknowledge(e, parseAckRange(p)); err != nil {
			return err
		}
	}
	return nil
}

// printable makes a peer's words fit for a log line.
func printable(b []byte) string {
	const most = 300
	if len(b) > most {
		b = b[:most]
	}
	return string(slices.DeleteFunc(slices.Clone([]rune(string(b))), func(r rune) bool { return r < ' ' || r == 0x7f }))
}
