// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twinbd/twinbd/internal/block"
)

// clientDepth is how many requests a Client has in flight at once; more wait.
const clientDepth = 256

// ErrClientClosed is what requests fail with that a Close has overtaken.
var ErrClientClosed = errors.New("client is closed")

// Client is the client's side of one connection. All methods may be called
// from many goroutines at once: each waits for its own request only, and what
// they send at the same time leaves in one piece. What the server refuses is
// an error that wraps a block.Status.
type Client struct {
	conn       net.Conn
	size       int64
	flags      uint16
	maximum    int
	structured bool
	contexts   uint8
	ids        [len(contexts)]uint32

	calls [clientDepth]call
	free  chan *call // those that are not in use

	out writer

	leaving  atomic.Bool // Close has been called
	once     sync.Once
	reason   error         // why the connection is no more, set before failed is closed
	failed   chan struct{} // closed when the receiver is over and takes no more calls
	finished chan struct{} // closed when it has failed those that were waiting
}

// call is one request in flight. Whoever turns waiting from true to false gives
// the answer: the receiver, or after its end the goroutine that made the call.
// While it is true the fields from op on are the receiver's.
type call struct {
	index   uint64
	cookie  uint64
	header  [block.RecordHeader]byte
	done    chan struct{} // told twice: the request is sent, the answer is there
	waiting atomic.Bool

	op      block.Op
	offset  int64
	length  int64
	data    []byte            // READ
	filled  int64             // READ: bytes that chunks have brought
	extents [2][]block.Extent // BLOCK_STATUS
	err     error
}

func newClient(g *greeter) *Client {
	c := &Client{
		conn:       g.conn,
		size:       g.size,
		flags:      g.flags,
		maximum:    int(g.maximum),
		structured: g.structured,
		contexts:   g.contexts,
		ids:        g.ids,
		free:       make(chan *call, clientDepth),
		out:        writer{handover: make(chan struct{}, 1)},
		failed:     make(chan struct{}),
		finished:   make(chan struct{}),
	}
	for i := range c.calls {
		c.calls[i].index = uint64(i)
		c.calls[i].done = make(chan struct{}, 2)
		c.free <- &c.calls[i]
	}
	go c.receive()
	go c.relieve()
	return c
}

// Size is the size of the export in bytes.
func (c *Client) Size() int64 { return c.size }

// Flags are the export's transmission flags.
func (c *Client) Flags() uint16 { return c.flags }

// Contexts are the block.Context… bits that BlockStatus can answer about.
func (c *Client) Contexts() uint8 { return c.contexts }

// ReadAt fills p from offset.
func (c *Client) ReadAt(p []byte, offset int64) error {
	for len(p) > 0 {
		n := min(len(p), c.maximum)
		if _, err := c.roundTrip(block.Read, 0, offset, int64(n), p[:n]); err != nil {
			return err
		}
		p, offset = p[n:], offset+int64(n)
	}
	return nil
}

// WriteAt writes p at offset. The only flag is block.FUA.
func (c *Client) WriteAt(p []byte, offset int64, flags block.Flags) error {
	for len(p) > 0 {
		n := min(len(p), c.maximum)
		if _, err := c.roundTrip(block.Write, flags, offset, int64(n), p[:n]); err != nil {
			return err
		}
		p, offset = p[n:], offset+int64(n)
	}
	return nil
}

// Flush makes durable what was answered before.
func (c *Client) Flush() error {
	_, err := c.roundTrip(block.Flush, 0, 0, 0, nil)
	return err
}

// Trim gives the range up. length is at most 4 GiB - 1, as for all that follow.
func (c *Client) Trim(offset, length int64, flags block.Flags) error {
	_, err := c.roundTrip(block.Trim, flags, offset, length, nil)
	return err
}

// WriteZeroes makes the range zero. Flags are block.FUA, NoHole and FastZero.
func (c *Client) WriteZeroes(offset, length int64, flags block.Flags) error {
	_, err := c.roundTrip(block.WriteZeroes, flags, offset, length, nil)
	return err
}

// Cache asks the server to read the range ahead.
func (c *Client) Cache(offset, length int64) error {
	_, err := c.roundTrip(block.Cache, 0, offset, length, nil)
	return err
}

// BlockStatus returns what is known of the range: its allocation, and which
// blocks of it are dirty, each from offset on and perhaps for less than length.
// The only flag is block.ReqOne.
func (c *Client) BlockStatus(offset, length int64, flags block.Flags) (allocation, dirty []block.Extent, err error) {
	extents, err := c.roundTrip(block.BlockStatus, flags, offset, length, nil)
	return extents[0], extents[1], err
}

// Close says goodbye and closes the connection. Requests that are in flight
// fail with ErrClientClosed.
func (c *Client) Close() error {
	c.leaving.Store(true)
	var b [block.RecordHeader]byte
	block.PutRecord(b[:], commandDisconnect, 0, 0, 0, 0)
	impatient := time.AfterFunc(time.Second, func() { _ = c.conn.Close() })
	defer impatient.Stop()
	c.out.Lock()
	if !c.out.busy {
		_, _ = c.conn.Write(b[:]) // the server may be gone: then there is nobody to tell
	}
	c.out.Unlock()
	c.fail(ErrClientClosed)
	<-c.finished
	return nil
}

// roundTrip makes one request and waits for its answer. It returns only when
// nobody uses p any more.
func (c *Client) roundTrip(op block.Op, flags block.Flags, offset, length int64, p []byte) (extents [2][]block.Extent, err error) {
	if offset < 0 || length < 0 || length > 1<<32-1 {
		return extents, fmt.Errorf("%v of %d bytes at %d: %w", op, length, offset, block.Invalid)
	}
	var k *call
	select {
	case k = <-c.free:
	case <-c.failed:
		return extents, c.reason
	}
	k.cookie = (k.cookie/clientDepth+1)*clientDepth + k.index
	k.op, k.offset, k.length, k.filled, k.err = op, offset, length, 0, nil
	k.extents, k.data = extents, nil
	block.PutRecord(k.header[:], op, flags, k.cookie, offset, length)
	var payload []byte
	switch op {
	case block.Read:
		k.data = p
	case block.Write:
		payload = p
	}
	c.issue(k, payload)
	<-k.done
	<-k.done
	extents, err = k.extents, k.err
	k.data = nil
	c.free <- k
	if err != nil {
		err = fmt.Errorf("%v of %d bytes at %d: %w", op, length, offset, err)
	}
	return extents, err
}
