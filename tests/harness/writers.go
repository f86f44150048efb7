// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"

	"github.com/twinbd/twinbd/internal/block"
)

// Store is what a ledger writes to and reads from: an *nbd.Client.
type Store interface {
	ReadAt(p []byte, offset int64) error
	WriteAt(p []byte, offset int64, flags block.Flags) error
	WriteZeroes(offset, length int64, flags block.Flags) error
	Trim(offset, length int64, flags block.Flags) error
	Flush() error
}

// Writers are goroutines that write again and again until they are stopped, or
// fail because the node that they write to has died.
type Writers struct {
	quit chan struct{}
	wg   sync.WaitGroup

	mu   sync.Mutex
	errs []error
}

// Start starts so many writers. Each calls once with its number and a source of
// random numbers of its own.
func (w *Writers) Start(count int, seed uint64, once func(writer int, random *rand.Rand) error) {
	w.quit, w.errs = make(chan struct{}), nil
	for writer := range count {
		random := rand.New(rand.NewPCG(seed, uint64(writer)))
		w.wg.Go(func() {
			for {
				select {
				case <-w.quit:
					return
				default:
				}
				if err := once(writer, random); err != nil {
					w.mu.Lock()
					w.errs = append(w.errs, err)
					w.mu.Unlock()
					return
				}
			}
		})
	}
}

// Stop ends the writers and returns what they failed with.
func (w *Writers) Stop() error {
	close(w.quit)
	w.wg.Wait()
	return errors.Join(w.errs...)
}

// Stamp makes the content of a block or sector from its place and the number of
// the write that fills it, which stands in its first 8 bytes. 0 is for zeroes.
func Stamp(p []byte, place int64, number uint64) {
	if number == 0 {
		clear(p)
		return
	}
	binary.BigEndian.PutUint64(p, number)
	word := number*0x9e3779b97f4a7c15 ^ uint64(place)
	for i := 8; i < len(p); i += 8 {
		word = word*6364136223846793005 + 1442695040888963407
		binary.BigEndian.PutUint64(p[i:], word)
	}
}
