// SPDX-License-Identifier: Apache-2.0

//go:build linux

package power

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// writeback is what a kernel does of its own accord when pages have been dirty for
// half a minute, which no test waits for: it writes some of them, in the order that
// suits it, and asks for no flush. Without it a drive would hold little that was not
// being flushed in the moment of a cut, and a cut would tear nothing.
type writeback struct {
	quit chan struct{}
	done sync.WaitGroup
}

// startWriteback writes random parts, at random moments, of the files and devices
// that a pattern finds then.
func startWriteback(pattern string, random *rand.Rand) *writeback {
	w := &writeback{quit: make(chan struct{})}
	w.done.Go(func() {
		for {
			pause := time.NewTimer(time.Duration(random.Int64N(int64(20 * time.Millisecond))))
			select {
			case <-w.quit:
				pause.Stop()
				return
			case <-pause.C:
			}
			paths, _ := filepath.Glob(pattern) // it is well formed
			for _, path := range paths {
				writeSome(path, random)
			}
		}
	})
	return w
}

// writeSome begins to write a random part of what is dirty of a file. A file that is
// gone, or a device without power, is no failure of this kernel.
func writeSome(path string, random *rand.Rand) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if size, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_END); err == nil && size > 0 {
		offset := random.Int64N(size)
		_ = unix.SyncFileRange(int(f.Fd()), offset, 1+random.Int64N(size-offset), unix.SYNC_FILE_RANGE_WRITE)
	}
}

// stop ends it.
func (w *writeback) stop() {
	close(w.quit)
	w.done.Wait()
}
