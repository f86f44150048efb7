// SPDX-License-Identifier: Apache-2.0

package blocktest

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/twinbd/twinbd/internal/block"
)

// Counts says what a CrashDisk was asked, faults included.
type Counts struct {
	Reads, Writes, Zeroes, Syncs         int
	ReadBytes, WrittenBytes, ZeroedBytes int64

	// SyncsAfterFailure counts the calls of Sync after one that failed: a
	// caller that keeps the rule never makes any.
	SyncsAfterFailure int
}

// Counts returns the counters.
func (d *CrashDisk) Counts() Counts {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.counts
}

func (d *CrashDisk) count(call Call) {
	c := &d.counts
	switch call.Op {
	case block.Read:
		c.Reads++
		c.ReadBytes += call.Length
	case block.Write:
		c.Writes++
		c.WrittenBytes += call.Length
	case block.Trim, block.WriteZeroes:
		c.Zeroes++
		c.ZeroedBytes += call.Length
	case block.Flush:
		c.Syncs++
		if d.suspect {
			c.SyncsAfterFailure++
		}
	}
}

// PowerCut takes the power away and gives it back. Of each sector that is not
// durable, the last content is lost with the probability lose; then the one
// before is kept, or lost in turn, back to the durable one. So 1 loses all that
// is not durable, and 0 nothing. It returns how many sectors were in doubt and
// how many of them do not have their last content.
//
// Every choice comes from rng: the same calls and the same seed leave the same
// disk. A closed disk is open again; faults and bad sectors stay.
func (d *CrashDisk) PowerCut(rng *rand.Rand, lose float64) (doubt, lost int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	doubt = len(d.cache)
	for _, number := range slices.Sorted(maps.Keys(d.cache)) {
		versions := d.cache[number]
		kept := len(versions) - 1
		for kept >= 0 && rng.Float64() < lose {
			kept--
		}
		if kept >= 0 {
			copy(d.durable[number*SectorSize:], versions[kept].content)
		}
		if kept < len(versions)-1 {
			lost++
		}
	}
	d.restart()
	return doubt, lost
}

// restart makes the durable content the current one. d.mu is held.
func (d *CrashDisk) restart() {
	copy(d.current, d.durable)
	clear(d.cache)
	d.suspect, d.closed = false, false
	d.cuts++
}

// Unsynced is the number of sectors that a power cut could take back.
func (d *CrashDisk) Unsynced() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.cache)
}

// Snapshot returns a copy of what reads would return.
func (d *CrashDisk) Snapshot() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return bytes.Clone(d.current)
}

// Durable returns a copy of what the worst power cut would leave.
func (d *CrashDisk) Durable() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return bytes.Clone(d.durable)
}

// Restore puts back a content taken with Snapshot or Durable, durably, with the
// power off meanwhile: a machine that is rolled back, or a disk that is
// replaced. The sizes must match.
func (d *CrashDisk) Restore(content []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(content) != len(d.durable) {
		panic(fmt.Sprintf("blocktest: restore %d bytes on a disk of %d", len(content), len(d.durable)))
	}
	copy(d.durable, content)
	d.restart()
}
