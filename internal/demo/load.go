// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/nbd"
)

const (
	// writers is how many writes the load has under way.
	writers = 8

	// loadTime is how long the load runs before and after a death.
	loadTime = 1500 * time.Millisecond

	// grace is how long a write may still take when the load is to end.
	grace = 5 * time.Second
)

// load writes blocks of the ledger through an export, as fast as they are
// acknowledged, until it is ended or the export fails.
type load struct {
	client *nbd.Client
	ledger *ledger
	wg     sync.WaitGroup
	stop   chan struct{}
	once   sync.Once
	ended  chan struct{} // closed when no writer is left

	mu   sync.Mutex
	last time.Time     // of the last acknowledgement
	gap  time.Duration // longest time between two, since mark
	err  error         // how the first write failed
}

// startLoad begins to write through a client, which it owns from then on.
func (d *demo) startLoad(client *nbd.Client) *load {
	l := &load{client: client, ledger: d.ledger, stop: make(chan struct{}), ended: make(chan struct{}), last: time.Now()}
	d.ledger.mark()
	for i := range writers {
		l.wg.Go(func() { l.write(i) })
	}
	go func() { l.wg.Wait(); close(l.ended) }()
	return l
}

// underLoad begins a chapter with the load running for a while, and ends the
// load however the chapter ends.
func (d *demo) underLoad(ctx context.Context, title string, chapter func(context.Context, *load) error) error {
	d.story.chapter(title + ", under write load")
	client, err := d.pair.primary.dial(ctx)
	if err != nil {
		return err
	}
	load := d.startLoad(client)
	defer load.abandon()
	began := time.Now()
	if err := load.keepUp(ctx, loadTime); err != nil {
		return err
	}
	writes, _ := d.ledger.counted()
	d.story.say("load: %d writers, 4 KiB each, anywhere in %s: %.0f writes/s, every one on both disks before it is acknowledged",
		writers, bytesText(d.layout.ledger), float64(writes)/time.Since(began).Seconds())
	return chapter(ctx, load)
}

// write is one writer. It has every writers-th slot to itself, up to the spare
// one.
func (l *load) write(first int) {
	random := rand.New(rand.NewPCG(rand.Uint64(), 0))
	content := make([]byte, block.Size)
	own := (l.ledger.spare() - first + writers - 1) / writers
	for {
		select {
		case <-l.stop:
			return
		default:
		}
		index := first + writers*random.IntN(own)
		l.ledger.begin(index, content)
		if err := l.client.WriteAt(content, l.ledger.at(index), 0); err != nil {
			l.fail(err)
			return
		}
		l.ledger.end(index)
		l.acknowledged()
	}
}

func (l *load) acknowledged() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.gap, l.last = max(l.gap, now.Sub(l.last)), now
}

func (l *load) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
	}
}

// mark begins to count and to look for the longest pause anew.
func (l *load) mark() {
	l.ledger.mark()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gap = 0
}

// pause is the longest time since mark in which nothing was acknowledged.
func (l *load) pause() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(l.gap, time.Since(l.last))
}

// keepUp lets the load run for some time. It is an error when a write fails.
func (l *load) keepUp(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-l.ended:
		return l.broken()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// lost waits until the export has failed and no write is under way any more. It
// returns when the last acknowledgement came.
func (l *load) lost(ctx context.Context) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case <-l.ended:
		l.client.Close()
		return l.last, nil
	case <-ctx.Done():
		return time.Time{}, fmt.Errorf("wait for the writers to notice: %w", ctx.Err())
	}
}

// finish ends the load, flushes what it wrote and says whether a write failed.
func (l *load) finish() error {
	l.abandon()
	defer l.client.Close()
	if err := l.broken(); err != nil {
		return err
	}
	return l.client.Flush()
}

// abandon ends the load in whatever state it is. It may be called again.
func (l *load) abandon() {
	l.once.Do(func() { close(l.stop) })
	select {
	case <-l.ended:
	case <-time.After(grace):
		l.client.Close() // its writes fail then
		<-l.ended
	}
}

func (l *load) broken() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return fmt.Errorf("write under load: %w", l.err)
	}
	return nil
}
