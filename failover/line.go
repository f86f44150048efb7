// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// line is one connection of a client to the witness, used by one call at a
// time. After any error it is of no use: an answer could still be on its way.
type line struct {
	conn  net.Conn
	in    *bufio.Reader
	calls uint64

	// spoilt: a context ended just as an answer came, and may yet put the
	// connection's deadline into the past.
	spoilt bool
}

func newLine(conn net.Conn) *line { return &line{conn: conn, in: bufio.NewReader(conn)} }

// greet opens the conversation.
func (l *line) greet(ctx context.Context) error {
	f, err := l.exchange(ctx, frameHello, helloBody())
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the connection was closed before the witness said welcome (%w); hint: "+
			"check that it is a witness, and that both use keys or neither does", err)
	}
	if err != nil {
		return err
	}
	d := decoder{b: f.body}
	version := d.uint16()
	if f.kind != frameWelcome || d.bad || version < minVersion || version > maxVersion {
		return fmt.Errorf("%w: welcome", errMalformed)
	}
	return nil
}

func (l *line) call(ctx context.Context, kind frameType, body []byte) (Answer, error) {
	f, err := l.exchange(ctx, kind, body)
	if err != nil {
		return Answer{}, err
	}
	if f.kind != frameAnswer {
		return Answer{}, fmt.Errorf("%w: message of type %d where an answer belongs", errMalformed, f.kind)
	}
	return decodeAnswer(f.body)
}

// exchange sends a frame and waits for the one that answers it, until ctx ends.
// A failure that the witness reports is returned as an error.
func (l *line) exchange(ctx context.Context, kind frameType, body []byte) (frame, error) {
	deadline, _ := ctx.Deadline()
	l.conn.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { l.conn.SetDeadline(time.Unix(1, 0)) })
	defer func() { l.spoilt = !stop() }()

	l.calls++
	f := frame{kind: kind, call: l.calls, body: body}
	if _, err := l.conn.Write(f.append(nil)); err != nil {
		return frame{}, err
	}
	answer, err := readFrame(l.in)
	switch {
	case err != nil:
		return frame{}, err
	case answer.call != l.calls:
		return frame{}, fmt.Errorf("%w: answer to call %d instead of %d", errMalformed, answer.call, l.calls)
	case answer.kind == frameFailure:
		return frame{}, decodeFailure(answer.body)
	}
	return answer, nil
}
