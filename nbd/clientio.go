// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/twinbd/twinbd/internal/block"
)

const (
	clientBuffer   = 256 << 10 // bytes read from the connection at once
	maxStatusChunk = 4 + extentLength<<20
)

// writer collects requests and sends them. The goroutine that finds it at rest
// sends what there is, its own request among it; what has gathered meanwhile is
// sent by relieve, so that nobody works for the others without end.
type writer struct {
	sync.Mutex
	queue    [][]byte
	calls    []*call // whose requests are in queue
	busy     bool    // somebody is sending
	handover chan struct{}
	over     bool // relieve is gone: the connection is no more

	// The sender's own: what is on its way, and the lists to swap.
	sending    net.Buffers
	spareQueue [][]byte
	spareCalls []*call
}

// issue sends a call's request, or answers it when that is too late.
func (c *Client) issue(k *call, payload []byte) {
	k.waiting.Store(true)
	select {
	case <-c.failed:
		k.done <- struct{}{}
		c.answer(k, c.reason)
		return
	default:
	}
	w := &c.out
	w.Lock()
	w.queue = append(w.queue, k.header[:])
	if len(payload) > 0 {
		w.queue = append(w.queue, payload)
	}
	w.calls = append(w.calls, k)
	if w.busy {
		w.Unlock()
		return
	}
	w.busy = true
	for c.send() {
		if !w.over {
			w.handover <- struct{}{}
			break
		}
	}
	w.Unlock()
}

// send writes what is queued. The lock is held, but not while writing. It
// reports whether more has gathered; if not, the writer is at rest again.
func (c *Client) send() (more bool) {
	w := &c.out
	queue, calls := w.queue, w.calls
	w.queue, w.calls = w.spareQueue[:0], w.spareCalls[:0]
	w.Unlock()
	w.sending = queue
	if _, err := w.sending.WriteTo(c.conn); err != nil {
		c.fail(fmt.Errorf("send: %w", err))
	}
	for _, k := range calls {
		k.done <- struct{}{}
	}
	clear(queue)
	clear(calls)
	w.Lock()
	w.spareQueue, w.spareCalls = queue, calls
	w.busy = len(w.queue) > 0
	return w.busy
}

// relieve goes on sending for those who have sent their own.
func (c *Client) relieve() {
	w := &c.out
	for !w.over {
		handed := true
		select {
		case <-w.handover:
			w.Lock()
		case <-c.finished:
			w.Lock()
			w.over = true
			select {
			case <-w.handover:
			default:
				handed = false
			}
		}
		for handed && c.send() {
		}
		w.Unlock()
	}
}

// fail ends the connection for the first reason that is given. A server that
// closes it when it is told that this client goes is no reason.
func (c *Client) fail(err error) {
	c.once.Do(func() {
		if c.leaving.Load() {
			err = ErrClientClosed
		}
		c.reason = err
		_ = c.conn.Close()
	})
}

// answer gives a call its answer, unless it has one.
func (c *Client) answer(k *call, err error) {
	if k.waiting.CompareAndSwap(true, false) {
		k.err = err
		k.done <- struct{}{}
	}
}

// receive takes replies until the connection ends, and then fails what waits.
func (c *Client) receive() {
	defer close(c.finished)
	in := bufio.NewReaderSize(c.conn, clientBuffer)
	err := c.reply(in)
	for err == nil {
		err = c.reply(in)
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("server closed the connection")
	}
	c.fail(err)
	close(c.failed)
	for i := range c.calls {
		c.answer(&c.calls[i], c.reason)
	}
}

// reply takes one simple reply or one chunk.
func (c *Client) reply(in *bufio.Reader) error {
	b, err := in.Peek(simpleHeader)
	if err != nil {
		return err
	}
	switch magic := binary.BigEndian.Uint32(b); magic {
	case magicSimple:
		return c.simpleReply(in, b)
	case magicStructured:
		if b, err = in.Peek(chunkHeader); err != nil {
			return err
		}
		return c.chunk(in, b)
	default:
		return fmt.Errorf("reply has magic %#x", magic)
	}
}

// find returns the call that a reply is for.
func (c *Client) find(cookie uint64) (*call, error) {
	k := &c.calls[cookie%clientDepth]
	if !k.waiting.Load() || k.cookie != cookie {
		return nil, fmt.Errorf("reply to an unknown request %#x", cookie)
	}
	return k, nil
}

func (c *Client) simpleReply(in *bufio.Reader, b []byte) error {
	status := block.Status(binary.BigEndian.Uint32(b[4:]))
	k, err := c.find(binary.BigEndian.Uint64(b[8:]))
	if err != nil {
		return err
	}
	if _, err := in.Discard(simpleHeader); err != nil {
		return err
	}
	if status == block.OK {
		switch {
		case c.structured && (k.op == block.Read || k.op == block.BlockStatus):
			return fmt.Errorf("reply to a %v is not structured", k.op)
		case k.op == block.Read:
			if _, err := io.ReadFull(in, k.data); err != nil {
				return err
			}
		}
	}
	c.answer(k, status.Err())
	return nil
}

// chunk takes one chunk of a structured reply.
func (c *Client) chunk(in *bufio.Reader, b []byte) error {
	flags, kind := binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:])
	length := binary.BigEndian.Uint32(b[16:])
	k, err := c.find(binary.BigEndian.Uint64(b[8:]))
	switch {
	case err != nil:
		return err
	case !c.structured:
		return errors.New("structured reply though none was agreed on")
	}
	if _, err := in.Discard(chunkHeader); err != nil {
		return err
	}
	switch {
	case kind == chunkNone && length == 0:
	case kind == chunkData && k.op == block.Read && length > 8:
		err = k.takeData(in, int64(length)-8)
	case kind == chunkHole && k.op == block.Read && length == 12:
		err = k.takeHole(in)
	case kind == chunkStatus && k.op == block.BlockStatus && length > 4 && (length-4)%extentLength == 0 && length <= maxStatusChunk:
		err = c.takeStatus(k, in, int(length))
	case kind&chunkErrorBit != 0 && length >= 6 && length <= maxOptionSkip:
		err = k.takeError(in, int(length))
	default:
		err = fmt.Errorf("chunk of type %d and %d bytes in the reply to a %v", kind, length, k.op)
	}
	if err != nil || flags&chunkDone == 0 {
		return err
	}
	if k.err == nil && k.op == block.Read && k.filled != k.length {
		return fmt.Errorf("reply to a read of %d bytes brings %d", k.length, k.filled)
	}
	c.answer(k, k.err)
	return nil
}

// span checks that n bytes at an offset that comes next lie in the call's range.
func (k *call) span(in *bufio.Reader, n int64) ([]byte, error) {
	var b [8]byte
	if _, err := io.ReadFull(in, b[:]); err != nil {
		return nil, err
	}
	at := binary.BigEndian.Uint64(b[:]) - uint64(k.offset)
	if at > uint64(k.length) || uint64(n) > uint64(k.length)-at {
		return nil, errors.New("chunk lies outside of the read")
	}
	k.filled += n
	return k.data[at : at+uint64(n)], nil
}

func (k *call) takeData(in *bufio.Reader, n int64) error {
	p, err := k.span(in, n)
	if err != nil {
		return err
	}
	_, err = io.ReadFull(in, p)
	return err
}

func (k *call) takeHole(in *bufio.Reader) error {
	b, err := in.Peek(12)
	if err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(b[8:])
	p, err := k.span(in, int64(n))
	if err != nil {
		return err
	}
	clear(p)
	_, err = in.Discard(4)
	return err
}

func (c *Client) takeStatus(k *call, in *bufio.Reader, length int) error {
	b := make([]byte, length)
	if _, err := io.ReadFull(in, b); err != nil {
		return err
	}
	id := binary.BigEndian.Uint32(b)
	for i, context := range contexts {
		if c.contexts&context.bit == 0 || c.ids[i] != id {
			continue
		}
		for b = b[4:]; len(b) > 0; b = b[extentLength:] {
			k.extents[i] = append(k.extents[i], block.Extent{
				Length: binary.BigEndian.Uint32(b),
				Flags:  binary.BigEndian.Uint32(b[4:]),
			})
		}
		return nil
	}
	return fmt.Errorf("status for an unknown context %d", id)
}

// takeError keeps the first error of a reply, with what the server says of it.
func (k *call) takeError(in *bufio.Reader, length int) error {
	b := make([]byte, length)
	if _, err := io.ReadFull(in, b); err != nil {
		return err
	}
	status := block.Status(binary.BigEndian.Uint32(b))
	n := int(binary.BigEndian.Uint16(b[4:]))
	switch {
	case status == block.OK || n > length-6:
		return errors.New("error chunk is malformed")
	case k.err != nil:
	case n == 0:
		k.err = status
	default:
		k.err = fmt.Errorf("%s: %w", b[6:6+n], status)
	}
	return nil
}
