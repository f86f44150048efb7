// SPDX-License-Identifier: Apache-2.0

//go:build linux

package rounds

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/tests/harness"
)

const (
	blockSize = 4096
	writers   = 8
	longest   = 8   // blocks of one write
	window    = 128 // blocks that one writer uses in a round
)

// entry is what may be in a block: what was acknowledged last, or a write of
// after that whose answer has not come. A block is named by the number of the
// write that filled it; 0 stands for zeroes.
type entry struct {
	acked uint64
	maybe []uint64
}

// ledger knows what must be on the volume. Each writer has blocks of its own, so
// no two writes of the same block are ever under way and their order is known.
type ledger struct {
	number atomic.Uint64 // of the last write
	acks   atomic.Uint64 // writes acknowledged

	mu      sync.Mutex
	blocks  map[int64]*entry   // all that were ever written
	touched map[int64]struct{} // since the last mark
	base    [writers]int64     // first block of each writer's window

	writers harness.Writers
}

// newRound chooses where the writers write from now on, and forgets what has been
// touched so far.
func (l *ledger) newRound(random *rand.Rand, size int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.touched)
	share := size / blockSize / writers
	for w := range l.base {
		l.base[w] = int64(w)*share + random.Int64N(share-window)
	}
}

func newLedger() *ledger {
	return &ledger{blocks: make(map[int64]*entry), touched: make(map[int64]struct{})}
}

// start lets the writers write to s until stop, or until s fails.
func (l *ledger) start(s harness.Store, seed uint64) {
	l.writers.Start(writers, seed, func(w int, random *rand.Rand) error { return l.writeOnce(s, w, random) })
}

// stop ends the writers and returns what they failed with.
func (l *ledger) stop() error { return l.writers.Stop() }

// writeOnce makes one change of a random kind in the writer's window.
func (l *ledger) writeOnce(s harness.Store, w int, random *rand.Rand) error {
	count := 1 + random.Int64N(longest)
	first := l.base[w] + random.Int64N(window-count)
	offset, length := first*blockSize, count*blockSize
	var number uint64
	var flags block.Flags
	if random.IntN(16) == 0 {
		flags = block.FUA
	}
	var err error
	switch kind := random.IntN(32); kind {
	case 0, 1:
		l.begin(first, count, 0)
		if kind == 0 {
			err = s.WriteZeroes(offset, length, flags)
		} else {
			err = s.Trim(offset, length, flags)
		}
	case 2:
		return s.Flush()
	default:
		number = l.number.Add(1)
		p := make([]byte, length)
		for i := range count {
			harness.Stamp(p[i*blockSize:][:blockSize], first+i, number)
		}
		l.begin(first, count, number)
		err = s.WriteAt(p, offset, flags)
	}
	if err == nil {
		l.acknowledged(first, count, number)
	}
	return err
}

func (l *ledger) begin(first, count int64, number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for b := first; b < first+count; b++ {
		e := l.blocks[b]
		if e == nil {
			e = new(entry)
			l.blocks[b] = e
		}
		e.maybe = append(e.maybe, number)
		l.touched[b] = struct{}{}
	}
}

func (l *ledger) acknowledged(first, count int64, number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for b := first; b < first+count; b++ {
		*l.blocks[b] = entry{acked: number}
	}
	l.acks.Add(1)
}

// touchedBlocks is how many blocks were written since the round began.
func (l *ledger) touchedBlocks() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int64(len(l.touched))
}

// check reads all blocks that were ever written. A write that was under way has
// then happened or not: what was read is what must be read from now on.
func (l *ledger) check(s harness.Store) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	got, want := make([]byte, blockSize), make([]byte, blockSize)
	for b, e := range l.blocks {
		if err := s.ReadAt(got, b*blockSize); err != nil {
			return fmt.Errorf("read block %d: %w", b, err)
		}
		number := binary.BigEndian.Uint64(got)
		harness.Stamp(want, b, number)
		switch {
		case !bytes.Equal(got, want):
			errs = append(errs, fmt.Errorf("block %d: it is no write of ours, or only a part of one; it begins with number %d", b, number))
		case number != e.acked && !slices.Contains(e.maybe, number):
			errs = append(errs, fmt.Errorf("block %d: write %d was acknowledged, %v were under way, but %d is there", b, e.acked, e.maybe, number))
		}
		*e = entry{acked: number}
		if len(errs) == 10 {
			break
		}
	}
	return errors.Join(errs...)
}
