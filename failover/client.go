// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

// DefaultCallTimeout is how long a Client waits for an answer.
const DefaultCallTimeout = time.Second

// ClientConfig says whom a Client asks, and in whose name.
type ClientConfig struct {
	Cluster   string
	From      string
	Addresses []string // "host:port", all of one witness; tried in turn

	// Dial connects to one of them, and with keys makes sure that it is the
	// witness; nil: TCP without keys.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// Timeout is for a whole call, connecting included; 0: DefaultCallTimeout.
	// A context that ends earlier counts.
	Timeout time.Duration
}

// Client is a Witness at the other end of a network. It keeps connections that
// are in order and makes new ones when a call needs them: each call has a
// connection of its own for as long as it lasts.
type Client struct {
	config   ClientConfig
	lifetime context.Context
	end      context.CancelFunc

	idle struct {
		sync.Mutex
		lines []*line
		first int // index of the address that answered last
	}
}

// maxIdle is how many connections a client keeps.
const maxIdle = 2

// NewClient checks the configuration; it connects at the first call.
func NewClient(config ClientConfig) (*Client, error) {
	if err := errors.Join(CheckName("cluster", config.Cluster), CheckName("node", config.From)); err != nil {
		return nil, err
	}
	if len(config.Addresses) == 0 {
		return nil, errors.New("the witness has no address; hint: set witness.address, as in [\"10.0.0.3:7801\"]")
	}
	if config.Dial == nil {
		config.Dial = new(net.Dialer).DialContext
	}
	if config.Timeout == 0 {
		config.Timeout = DefaultCallTimeout
	}
	c := &Client{config: config}
	c.lifetime, c.end = context.WithCancel(context.Background())
	return c, nil
}

// Close ends the calls under way, and those that follow, with net.ErrClosed.
func (c *Client) Close() error {
	c.end()
	c.hangUp()
	return nil
}

// Read asks for a service's record.
func (c *Client) Read(ctx context.Context, q Query) (Answer, error) {
	q.Cluster, q.From = c.config.Cluster, c.config.From
	return c.call(ctx, frameRead, q.append(nil))
}

// Change asks for a change of a service's record.
func (c *Client) Change(ctx context.Context, q Request) (Answer, error) {
	q.Cluster, q.From = c.config.Cluster, c.config.From
	return c.call(ctx, frameChange, q.append(nil))
}

func (c *Client) call(ctx context.Context, kind frameType, body []byte) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	defer context.AfterFunc(c.lifetime, cancel)()

	answer, err := c.try(ctx, kind, body)
	switch {
	case err == nil:
		return answer, nil
	case c.lifetime.Err() != nil:
		err = net.ErrClosed
	case ctx.Err() != nil:
		err = fmt.Errorf("%w (%w)", ctx.Err(), err)
	case errors.Is(err, os.ErrDeadlineExceeded): // the connection's clock was first
		err = fmt.Errorf("%w (%w)", context.DeadlineExceeded, err)
	}
	return Answer{}, fmt.Errorf("ask witness: %w", err)
}

// try makes the call on a kept connection or, when that turns out to be dead, on
// a new one. The witness may then see it twice, which does no harm: a read
// changes nothing and a change is known by its token.
func (c *Client) try(ctx context.Context, kind frameType, body []byte) (Answer, error) {
	if l := c.kept(); l != nil {
		answer, err := c.use(ctx, l, kind, body)
		if err == nil || isFailure(err) || ctx.Err() != nil {
			return answer, err
		}
		c.hangUp()
	}
	l, err := c.connect(ctx)
	if err != nil {
		return Answer{}, err
	}
	return c.use(ctx, l, kind, body)
}

// use makes the call and keeps the connection if it is in order.
func (c *Client) use(ctx context.Context, l *line, kind frameType, body []byte) (Answer, error) {
	answer, err := l.call(ctx, kind, body)
	if err != nil {
		l.conn.Close()
		return Answer{}, err
	}
	if l.spoilt {
		l.conn.Close()
	} else {
		c.keep(l)
	}
	return answer, nil
}

func isFailure(err error) bool {
	var f *Failure
	return errors.As(err, &f)
}

// connect tries the addresses, the one that worked last first, and gives each
// its share of the time that is left. A witness that answers at one of them with
// a failure is not asked at the others.
func (c *Client) connect(ctx context.Context) (*line, error) {
	c.idle.Lock()
	first := c.idle.first
	c.idle.Unlock()
	var errs []error
	count := len(c.config.Addresses)
	for i := range count {
		which := (first + i) % count
		l, err := c.connectTo(ctx, c.config.Addresses[which], count-i)
		if err == nil {
			c.idle.Lock()
			c.idle.first = which
			c.idle.Unlock()
			return l, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", c.config.Addresses[which], err))
		if isFailure(err) || ctx.Err() != nil {
			break
		}
	}
	return nil, oneLine(errs)
}

// oneLine is errors.Join for people who read logs by the line.
func oneLine(errs []error) error {
	err := errs[0]
	for _, next := range errs[1:] {
		err = fmt.Errorf("%w; %w", err, next)
	}
	return err
}

func (c *Client) connectTo(ctx context.Context, address string, shares int) (*line, error) {
	deadline, _ := ctx.Deadline() // call has set one
	ctx, cancel := context.WithTimeout(ctx, time.Until(deadline)/time.Duration(shares))
	defer cancel()
	conn, err := c.config.Dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	l := newLine(conn)
	if err := l.greet(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return l, nil
}

func (c *Client) kept() *line {
	c.idle.Lock()
	defer c.idle.Unlock()
	n := len(c.idle.lines)
	if n == 0 {
		return nil
	}
	l := c.idle.lines[n-1]
	c.idle.lines = c.idle.lines[:n-1]
	return l
}

func (c *Client) keep(l *line) {
	c.idle.Lock()
	defer c.idle.Unlock()
	if len(c.idle.lines) >= maxIdle || c.lifetime.Err() != nil {
		l.conn.Close()
		return
	}
	c.idle.lines = append(c.idle.lines, l)
}

// hangUp closes the connections that are kept.
func (c *Client) hangUp() {
	c.idle.Lock()
	defer c.idle.Unlock()
	for _, l := range c.idle.lines {
		l.conn.Close()
	}
	c.idle.lines = nil
}
