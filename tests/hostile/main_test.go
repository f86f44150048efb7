// SPDX-License-Identifier: Apache-2.0

//go:build linux

package hostile

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twinbd/twinbd/nbd"
	"github.com/twinbd/twinbd/tests/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

const (
	data = "data"

	// patience is how long something may take that takes a moment, on a machine
	// that is slow, busy and under attack.
	patience = 30 * time.Second

	// late is the longest that a client may wait for an answer meanwhile.
	late = 10 * time.Second
)

// attack is what is done to one listener.
type attack struct {
	name        string
	connections int
	held        int // of these open at once, on the side of the attacker
	speak       func(c net.Conn, rng *rand.Rand)
}

// attacks are what a stranger does anywhere.
func attacks(greeting []byte) []attack {
	return []attack{
		{"silent", 10_000, 1500, func(net.Conn, *rand.Rand) {}},
		{"random bytes", 2000, 500, func(c net.Conn, rng *rand.Rand) {
			b := make([]byte, 1+rng.IntN(64<<10))
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
			c.Write(b)
		}},
		{"stops in the middle", 2000, 1000, func(c net.Conn, rng *rand.Rand) {
			c.Write(greeting[:rng.IntN(len(greeting))])
		}},
		{"gone at once", 3000, 1, func(c net.Conn, rng *rand.Rand) {
			if t, ok := c.(*net.TCPConn); ok && rng.IntN(2) == 0 {
				t.SetLinger(0) // a reset
			}
			c.Write(greeting[:rng.IntN(len(greeting))])
			c.Close()
		}},
	}
}

// carryOut makes the connections of an attack and closes them all at the end.
// during is called again and again meanwhile.
func (a attack) carryOut(t *testing.T, dial func() (net.Conn, error), during func()) {
	t.Helper()
	var made, refused atomic.Int64
	var workers sync.WaitGroup
	const count = 8
	for w := range count {
		workers.Go(func() {
			rng := rand.New(rand.NewPCG(7, uint64(w)))
			var open []net.Conn
			for made.Load()+refused.Load() < int64(a.connections) {
				c, err := dial()
				if err != nil {
					refused.Add(1)
					continue
				}
				made.Add(1)
				c.SetWriteDeadline(time.Now().Add(time.Second))
				a.speak(c, rng)
				if open = append(open, c); len(open) > a.held/count {
					open[0].Close()
					open = open[1:]
				}
			}
			for _, c := range open {
				c.Close()
			}
		})
	}
	over := make(chan struct{})
	go func() { workers.Wait(); close(over) }()
	for began := time.Now(); ; during() {
		select {
		case <-over:
			t.Logf("%s: %d connections in %v, %d refused", a.name, made.Load(), time.Since(began).Round(time.Millisecond), refused.Load())
			return
		default:
		}
	}
}

// besiege holds so many connections that say nothing, and makes each anew soon
// after it was closed, until lift is called. It returns when all were made once.
func besiege(t *testing.T, held int, dial func() (net.Conn, error)) (lift func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var besiegers, begun sync.WaitGroup
	begun.Add(held)
	for range held {
		besiegers.Go(func() {
			first := sync.OnceFunc(begun.Done)
			defer first()
			for ctx.Err() == nil {
				c, err := dial()
				first()
				if err == nil {
					stop := context.AfterFunc(ctx, func() { c.Close() })
					drain(c)
					stop()
					c.Close()
				}
				select {
				case <-ctx.Done():
				case <-time.After(200 * time.Millisecond):
				}
			}
		})
	}
	begun.Wait()
	return func() {
		cancel()
		besiegers.Wait()
	}
}

// honest is a client that writes and reads all the time.
type honest struct {
	stop  chan struct{}
	ended chan struct{}
	count int
	worst time.Duration
	err   error
}

// serveOneself begins with a client that is connected already.
func serveOneself(c *nbd.Client) *honest {
	h := &honest{stop: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(h.ended)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for i := 0; h.err == nil; i++ {
			began := time.Now()
			h.err = exchange(c, int64(i%64)<<12, byte(i))
			h.worst = max(h.worst, time.Since(began))
			h.count++
			select {
			case <-h.stop:
				return
			case <-tick.C:
			}
		}
	}()
	return h
}

// exchange writes a block and reads it back.
func exchange(c *nbd.Client, offset int64, seed byte) error {
	p := bytes.Repeat([]byte{seed}, 4096)
	if err := c.WriteAt(p, offset, 0); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	got := make([]byte, len(p))
	if err := c.ReadAt(got, offset); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if !bytes.Equal(got, p) {
		return fmt.Errorf("what was read at %d is not what was written", offset)
	}
	return nil
}

// end stops it, and holds that it was served all the time.
func (h *honest) end(t *testing.T) {
	t.Helper()
	close(h.stop)
	<-h.ended
	t.Logf("a client was served %d times meanwhile, after %v at the worst", h.count, h.worst.Round(time.Millisecond))
	if h.err != nil {
		t.Errorf("a client was not served: %v", h.err)
	}
	if h.worst > late {
		t.Errorf("a client waited for %v", h.worst)
	}
}

// newcomer holds that somebody new gets in and is served.
func newcomer(t *testing.T, dial func(context.Context) (*nbd.Client, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	harness.WaitFor(t, "a new client to be let in", patience, func() error {
		c, err := dial(ctx)
		if err != nil {
			return err
		}
		defer c.Close()
		return c.ReadAt(make([]byte, 512), 0)
	})
}

// bounds are what a process may hold more than before.
type bounds struct {
	memory      int64
	descriptors int
	log         int64
}

// watched is a process whose usage is looked at.
type watched struct {
	name   string
	p      *harness.Process
	before harness.Usage
	most   harness.Usage
}

func watch(t *testing.T, name string, p *harness.Process) *watched {
	u := p.Usage(t)
	return &watched{name, p, u, u}
}

func (w *watched) look(t *testing.T) { w.most = w.most.Max(w.p.Usage(t)) }

// within holds that the bounds were kept, and that descriptors come back.
func (w *watched) within(t *testing.T, b bounds) {
	t.Helper()
	w.look(t)
	t.Logf("%s: before %s; at most %s", w.name, w.before, w.most)
	if more := w.most.Memory - w.before.Memory; more > b.memory*harness.MemoryFactor {
		t.Errorf("%s took %d MiB more, at most %d are allowed", w.name, more>>20, b.memory*harness.MemoryFactor>>20)
	}
	if more := w.most.Descriptors - w.before.Descriptors; more > b.descriptors {
		t.Errorf("%s took %d descriptors more, at most %d are allowed", w.name, more, b.descriptors)
	}
	if more := w.most.LogBytes - w.before.LogBytes; more > b.log {
		t.Errorf("%s wrote %d bytes of log, at most %d are allowed", w.name, more, b.log)
	}
	harness.WaitFor(t, w.name+" to give descriptors back", patience, func() error {
		if now := w.p.Usage(t).Descriptors; now > w.before.Descriptors+4 {
			return fmt.Errorf("%d, and %d before", now, w.before.Descriptors)
		}
		return nil
	})
}

// drain reads until the other side hangs up.
func drain(c net.Conn) { io.Copy(io.Discard, c) }
