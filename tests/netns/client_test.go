// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netns

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/internal/trust"
	"github.com/twinbd/twinbd/nbd"
	"github.com/twinbd/twinbd/tests/harness"
)

// What the client does.
const (
	blocks      = 8
	workers     = 3
	every       = 10 * time.Millisecond  // a worker begins an operation
	dialLimit   = 50 * time.Millisecond  // then it tries again: who has the address may have changed
	greetLimit  = 500 * time.Millisecond // for the handshake
	answerLimit = 300 * time.Millisecond // then it connects anew
)

// operation is one that the client made. Without an answer it may have happened
// at any time since it began, or not at all.
type operation struct {
	worker   int
	block    int
	write    bool
	value    uint64 // written, or read
	began    time.Duration
	ended    time.Duration
	answered bool
	server   string // by its key
}

// client writes and reads blocks at the virtual address, and records what it
// gets.
type client struct {
	cluster *cluster
	keys    *trust.Keys
	began   time.Time
	values  atomic.Uint64

	mu      sync.Mutex
	history []operation
	faults  []string // what no client may see

	split    bool // two nodes are made to serve: what the client sees is not judged
	stopping context.CancelFunc
	working  sync.WaitGroup
}

// newClient starts a client, which is stopped and judged at the end of the test,
// and returns when it is well under way.
func (c *cluster) newClient(t testing.TB, seed uint64) *client {
	t.Helper()
	keys, err := trust.Load(c.path("tls"), "admin")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	k := &client{cluster: c, keys: keys, began: time.Now(), stopping: stop}
	for number := range workers {
		w := &worker{client: k, number: number, random: rand.New(rand.NewPCG(seed, uint64(number)))}
		k.working.Go(func() { w.run(ctx) })
	}
	t.Cleanup(func() { k.stop(); k.judge(t) })
	k.settle(t)
	return k
}

// settle waits until the client has been served for a while.
func (k *client) settle(t testing.TB) {
	t.Helper()
	from := len(k.operations())
	harness.WaitFor(t, "the client to be served", patience, func() error {
		answered := 0
		for _, o := range k.operations()[from:] {
			if o.answered {
				answered++
			}
		}
		if answered < 100 {
			return fmt.Errorf("%d operations were answered", answered)
		}
		return nil
	})
}

func (k *client) now() time.Duration { return time.Since(k.began) }

// stop ends the client's work.
func (k *client) stop() {
	k.stopping()
	k.working.Wait()
}

func (k *client) record(o operation) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.history = append(k.history, o)
}

func (k *client) fault(format string, args ...any) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.faults = append(k.faults, fmt.Sprintf("%8v ", k.now().Round(time.Millisecond))+fmt.Sprintf(format, args...))
}

// operations is what was recorded until now.
func (k *client) operations() []operation {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]operation(nil), k.history...)
}

// worker is one connection of the client, again and again.
type worker struct {
	client *client
	number int
	random *rand.Rand
	conn   *connection // nil: none
}

// connection is one to whoever has the virtual address.
type connection struct {
	*nbd.Client
	raw    net.Conn
	server string
}

func (w *worker) run(ctx context.Context) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for ctx.Err() == nil {
		if w.conn == nil {
			w.conn, _ = w.client.dial(ctx) // refused, or nobody there: again
		} else if err := w.operate(); err != nil {
			w.hangUp()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	w.hangUp()
}

func (w *worker) hangUp() {
	if w.conn != nil {
		_ = w.conn.raw.Close() // whatever is on the way counts as unanswered
		_ = w.conn.Close()
		w.conn = nil
	}
}

// dial connects to the export at the virtual address; either node's key is
// right.
func (k *client) dial(ctx context.Context) (*connection, error) {
	conn := new(connection)
	secure := k.keys.Client("alpha")
	secure.VerifyConnection = func(state tls.ConnectionState) error {
		conn.server = k.keys.PeerName(state)
		if conn.server != "alpha" && conn.server != "beta" {
			return fmt.Errorf("%q has the virtual address", conn.server)
		}
		return nil
	}
	err := k.cluster.client.enter(func() (err error) {
		conn.raw, err = (&net.Dialer{Timeout: dialLimit}).DialContext(ctx, "tcp", fmt.Sprintf("%s:%d", virtual, exportPort))
		return err
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, greetLimit)
	defer cancel()
	if conn.Client, err = nbd.NewClient(ctx, conn.raw, volumeName, secure); err != nil {
		return nil, err
	}
	return conn, nil
}

// operate makes one operation. The first worker only writes: what it waits is
// what is measured.
func (w *worker) operate() error {
	raw := w.conn.raw // w.conn may be another by the time that the limit is over
	impatient := time.AfterFunc(answerLimit, func() { _ = raw.Close() })
	defer impatient.Stop()
	kind := w.random.IntN(100)
	if w.number > 0 && kind < 5 {
		return w.conn.Flush()
	}
	o := operation{worker: w.number, block: w.random.IntN(blocks), write: w.number == 0 || kind < 40, server: w.conn.server}
	data := make([]byte, block.Size)
	var err error
	if o.write {
		o.value = w.client.values.Add(1)
		fill(data, o.value)
		o.began = w.client.now()
		err = w.conn.WriteAt(data, int64(o.block)*block.Size, 0)
	} else {
		o.began = w.client.now()
		err = w.conn.ReadAt(data, int64(o.block)*block.Size)
	}
	o.ended = w.client.now()
	o.answered = err == nil
	if err == nil && !o.write {
		var whole bool
		if o.value, whole = valueOf(data); !whole {
			w.client.fault("block %d is half of one write and half of another: %d and others", o.block, o.value)
		}
	}
	if errors.Is(err, block.IOError) || errors.Is(err, block.NoSpace) {
		w.client.fault("%s answered: %v", o.server, err)
	}
	w.client.record(o)
	return err
}

func fill(data []byte, value uint64) {
	for at := 0; at < len(data); at += 8 {
		binary.BigEndian.PutUint64(data[at:], value)
	}
}

func valueOf(data []byte) (value uint64, whole bool) {
	value = binary.BigEndian.Uint64(data)
	for at := 8; at < len(data); at += 8 {
		if binary.BigEndian.Uint64(data[at:]) != value {
			return value, false
		}
	}
	return value, true
}

// gap is the longest time from a moment on in which the first worker got no write
// acknowledged. It is only meaningful after a write was acknowledged after it.
func (k *client) gap(since time.Duration) (longest time.Duration) {
	last := time.Duration(-1)
	for _, o := range k.operations() {
		if o.worker != 0 || !o.answered {
			continue
		}
		if last >= 0 && o.ended >= since {
			longest = max(longest, o.ended-last)
		}
		last = o.ended
	}
	return longest
}

// served is when a node first acknowledged a write of the first worker that had
// begun after a moment; 0: not yet.
func (k *client) served(server string, since time.Duration) time.Duration {
	for _, o := range k.operations() {
		if o.server == server && o.worker == 0 && o.answered && o.began >= since {
			return o.ended
		}
	}
	return 0
}
