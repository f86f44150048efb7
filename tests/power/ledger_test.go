// SPDX-License-Identifier: Apache-2.0

//go:build linux

package power

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/tests/drive"
	"github.com/twinbd/twinbd/tests/harness"
)

const (
	writers = 6
	longest = 64   // sectors of one write
	window  = 2048 // sectors that one writer uses in a round
)

// version is what a write has made of a sector. It is named by the number of the
// write; 0 stands for zeroes.
type version struct {
	number uint64
	acked  uint64 // the write was acknowledged as the one of this count; 0: it was not
	fua    bool   // and was to be durable then
}

// ledger knows what must be on the volume, sector by sector, for a power cut tears
// writes there. Each writer has sectors of its own, so no two writes of the same
// one are ever under way and their order is known.
type ledger struct {
	number atomic.Uint64 // of the last write

	mu      sync.Mutex
	sectors [][]version    // oldest first; the first is durable, and no later one is known to be
	acks    uint64         // writes acknowledged
	flushed uint64         // of them, those that an acknowledged flush covers
	base    [writers]int64 // first sector of each writer's window
	calm    int            // one change in so many is a flush, one more is durable by itself

	writers harness.Writers
}

// newLedger is the ledger of a volume of zeroes.
func newLedger(size int64) *ledger {
	l := &ledger{sectors: make([][]version, size/drive.SectorSize)}
	for s := range l.sectors {
		l.sectors[s] = []version{{}}
	}
	return l
}

// newRound chooses where the writers write from now on, and how often they flush.
func (l *ledger) newRound(random *rand.Rand) {
	share := int64(len(l.sectors)) / writers
	for w := range l.base {
		l.base[w] = int64(w)*share + random.Int64N(share-window)
	}
	l.calm = []int{20, 200, 2000}[random.IntN(3)]
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
	offset, length := first*drive.SectorSize, count*drive.SectorSize
	if random.IntN(l.calm) == 0 {
		return l.flush(s)
	}
	var flags block.Flags
	if random.IntN(l.calm) == 0 {
		flags = block.FUA
	}
	var number uint64
	var err error
	switch random.IntN(48) {
	case 0:
		l.begin(first, count, 0)
		err = s.WriteZeroes(offset, length, flags)
	case 1:
		l.begin(first, count, 0)
		err = s.Trim(offset, length, flags)
	default:
		number = l.number.Add(1)
		p := make([]byte, length)
		for i := range count {
			harness.Stamp(p[i*drive.SectorSize:][:drive.SectorSize], first+i, number)
		}
		l.begin(first, count, number)
		err = s.WriteAt(p, offset, flags)
	}
	if err == nil {
		l.acknowledged(first, count, flags&block.FUA != 0)
	}
	return err
}

// flush makes durable what was acknowledged before, and counts on it.
func (l *ledger) flush(s harness.Store) error {
	l.mu.Lock()
	covered := l.acks
	l.mu.Unlock()
	if err := s.Flush(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flushed = max(l.flushed, covered)
	return nil
}

func (l *ledger) begin(first, count int64, number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := first; s < first+count; s++ {
		versions := l.sectors[s]
		l.sectors[s] = append(versions[l.durable(versions):], version{number: number})
	}
}

func (l *ledger) acknowledged(first, count int64, fua bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acks++
	for s := first; s < first+count; s++ {
		last := &l.sectors[s][len(l.sectors[s])-1]
		last.acked, last.fua = l.acks, fua
	}
}

// written is how many writes were acknowledged.
func (l *ledger) written() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acks
}

// promise is what a sector must still have after a cut: no version before the one
// whose index it returns.
type promise func(versions []version) (oldest int)

// durable: what was acknowledged and then flushed, or written with FUA, is there
// whatever lost its power.
func (l *ledger) durable(versions []version) int {
	for i := len(versions) - 1; i > 0; i-- {
		if v := versions[i]; v.acked != 0 && (v.fua || v.acked <= l.flushed) {
			return i
		}
	}
	return 0
}

// acked: where a node kept running that had everything, nothing is missing that was
// acknowledged.
func (l *ledger) acked(versions []version) int {
	for i := len(versions) - 1; i > 0; i-- {
		if versions[i].acked != 0 {
			return i
		}
	}
	return 0
}

// check reads every sector of the volume and holds it against a promise. What was
// read stays: a write that was under way has now happened or not, and what a cut
// has taken does not come back.
func (l *ledger) check(s harness.Store, kept promise) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acks++ // stands for all that was under way and has happened
	var errs []error
	buffer := make([]byte, 256*drive.SectorSize)
	for at := 0; at < len(l.sectors) && len(errs) < 10; at += 256 {
		chunk := buffer[:min(256, len(l.sectors)-at)*drive.SectorSize]
		if err := s.ReadAt(chunk, int64(at)*drive.SectorSize); err != nil {
			return fmt.Errorf("read sector %d: %w", at, err)
		}
		for i := 0; i*drive.SectorSize < len(chunk); i++ {
			if err := l.settle(at+i, chunk[i*drive.SectorSize:][:drive.SectorSize], kept); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// settle holds one sector against a promise, and forgets what it is not.
func (l *ledger) settle(s int, got []byte, kept promise) error {
	want := make([]byte, drive.SectorSize)
	number := binary.BigEndian.Uint64(got)
	harness.Stamp(want, int64(s), number)
	if !bytes.Equal(got, want) {
		return fmt.Errorf("sector %d is no write of ours; it begins with number %d", s, number)
	}
	versions := l.sectors[s]
	oldest := kept(versions)
	found := len(versions) - 1
	for found >= oldest && versions[found].number != number {
		found--
	}
	if found < oldest {
		return fmt.Errorf("sector %d has write %d; of %v all before %d should be gone", s, number, versions, versions[oldest].number)
	}
	versions = versions[l.durable(versions[:found+1]) : found+1]
	if last := &versions[len(versions)-1]; len(versions) > 1 && last.acked == 0 {
		last.acked = l.acks
	}
	l.sectors[s] = versions
	return nil
}
