// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vm

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/internal/trust"
	"github.com/twinbd/twinbd/nbd"
	"github.com/twinbd/twinbd/tests/harness"
)

// What the client does.
const (
	writers     = 4
	ownBlocks   = 64                    // of each writer
	every       = 20 * time.Millisecond // a writer begins a write
	answerLimit = 5 * time.Second       // then it connects anew
)

// ledger is a client outside, which writes numbered blocks to who has the virtual
// address, and knows what was acknowledged. Each block is written by one writer, one
// write at a time. A write that was not answered may have happened, or may not, but
// never after a later one.
type ledger struct {
	cluster *cluster
	keys    *trust.Keys

	mu     sync.Mutex
	number uint64
	blocks [writers * ownBlocks][]uint64 // what a block may have: the first was acknowledged
	acked  []acked

	began time.Time

	stop    context.CancelFunc
	working sync.WaitGroup
}

// acked is when a write began that was acknowledged, and when that was.
type acked struct{ began, ended time.Duration }

// newLedger starts a client that writes until it is checked.
func (c *cluster) newLedger(t testing.TB) *ledger {
	t.Helper()
	keys, err := trust.Load(c.path("tls"), "admin")
	if err != nil {
		t.Fatal(err)
	}
	l := &ledger{cluster: c, keys: keys, began: time.Now()}
	for i := range l.blocks {
		l.blocks[i] = []uint64{0}
	}
	l.start()
	t.Cleanup(l.halt)
	l.waitMore(t, l.now())
	return l
}

func (l *ledger) start() {
	ctx, stop := context.WithCancel(context.Background())
	l.stop = stop
	for w := range writers {
		l.working.Go(func() { l.write(ctx, w) })
	}
}

// halt ends the writing.
func (l *ledger) halt() {
	l.stop()
	l.working.Wait()
}

func (l *ledger) now() time.Duration { return time.Since(l.began) }

// dial connects to the export at the virtual address; either node's key is right.
func (l *ledger) dial(ctx context.Context) (client *nbd.Client, raw net.Conn, err error) {
	err = l.cluster.outside.do(func() (err error) {
		raw, err = (&net.Dialer{Timeout: 200 * time.Millisecond}).DialContext(ctx, "tcp", fmt.Sprintf("%s:%d", virtual, exportPort))
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	secure := l.keys.Client("alpha")
	secure.VerifyConnection = func(state tls.ConnectionState) error {
		if name := l.keys.PeerName(state); name != "alpha" && name != "beta" {
			return fmt.Errorf("%q has the virtual address", name)
		}
		return nil
	}
	client, err = nbd.NewClient(ctx, raw, volumeName, secure)
	return client, raw, err
}

// write is one writer: its blocks, in a random order, again and again.
func (l *ledger) write(ctx context.Context, w int) {
	random := rand.New(rand.NewPCG(uint64(w), 0))
	tick := time.NewTicker(every)
	defer tick.Stop()
	for ctx.Err() == nil {
		if client, raw, err := l.dial(ctx); err == nil { // else refused, or nobody there: again
			for err == nil && ctx.Err() == nil {
				err = l.writeOnce(client, raw, w*ownBlocks+random.IntN(ownBlocks))
				<-tick.C
			}
			_ = raw.Close() // what is on the way counts as unanswered
			_ = client.Close()
		}
		<-tick.C
	}
}

func (l *ledger) writeOnce(client *nbd.Client, raw net.Conn, at int) error {
	l.mu.Lock()
	l.number++
	number := l.number
	l.blocks[at] = append(l.blocks[at], number)
	l.mu.Unlock()
	impatient := time.AfterFunc(answerLimit, func() { _ = raw.Close() })
	defer impatient.Stop()
	began := l.now()
	if err := client.WriteAt(content(at, number), int64(at)*block.Size, 0); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.blocks[at] = []uint64{number}
	l.acked = append(l.acked, acked{began, l.now()})
	return nil
}

// content is what a write puts into a block: its number and its place, all over.
func content(at int, number uint64) []byte {
	p := make([]byte, block.Size)
	for i := 0; i < len(p) && number != 0; i += 16 {
		binary.BigEndian.PutUint64(p[i:], number)
		binary.BigEndian.PutUint64(p[i+8:], uint64(at))
	}
	return p
}

// waitMore waits until a write was acknowledged that began after a moment, and
// returns how long after it that was.
func (l *ledger) waitMore(t testing.TB, since time.Duration) (after time.Duration) {
	t.Helper()
	harness.WaitFor(t, "a write to be acknowledged", patience, func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		for i := len(l.acked) - 1; i >= 0 && l.acked[i].began >= since; i-- {
			after = l.acked[i].ended - since
		}
		if after == 0 {
			return fmt.Errorf("%d were, none since", len(l.acked))
		}
		return nil
	})
	return after
}

// check holds that everything that was acknowledged is there, then goes on writing.
func (l *ledger) check(t testing.TB) {
	t.Helper()
	l.halt()
	defer l.start()
	var client *nbd.Client
	harness.WaitFor(t, "who has the virtual address", patience, func() (err error) {
		client, _, err = l.dial(t.Context())
		return err
	})
	defer client.Close()
	all := make([]byte, len(l.blocks)*block.Size)
	if err := errors.Join(client.Flush(), client.ReadAt(all, 0)); err != nil {
		t.Fatalf("read what was written: %v", err)
	}
	for at, may := range l.blocks {
		got := all[at*block.Size:][:block.Size]
		number := binary.BigEndian.Uint64(got)
		switch {
		case !slices.Equal(got, content(at, number)):
			t.Errorf("block %d is of no single write; it begins with number %d", at, number)
		case !slices.Contains(may, number):
			t.Errorf("block %d has write %d, not one of %d, of which the first was acknowledged", at, number, may)
		}
		l.blocks[at] = []uint64{number} // what was read stays
	}
	l.cluster.sameDrives(t)
	t.Logf("%d writes were acknowledged, and are there", len(l.acked))
}
