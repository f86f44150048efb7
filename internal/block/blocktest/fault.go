// SPDX-License-Identifier: Apache-2.0

package blocktest

import (
	"slices"
	"sync"

	"github.com/twinbd/twinbd/internal/block"
)

// Call is one call of a CrashDisk, as a Fault sees it.
type Call struct {
	Op     block.Op // Read, Write, WriteZeroes (Zero), Trim (Zero with punch) or Flush (Sync)
	Offset int64    // bytes
	Length int64    // bytes
	Try    bool     // a TryReadAt

	change uint64 // the last change that was made before the call
}

// On matches the calls of the given operations.
func On(ops ...block.Op) func(Call) bool {
	return func(c Call) bool { return slices.Contains(ops, c.Op) }
}

// Within matches the calls of the given operations that touch a range of bytes.
func Within(offset, length int64, ops ...block.Op) func(Call) bool {
	return func(c Call) bool {
		return slices.Contains(ops, c.Op) && c.Offset < offset+length && offset < c.Offset+c.Length
	}
}

// Fault is something that happens to the calls that it matches. The first
// fault injected that matches is the one that counts.
type Fault struct {
	Match func(Call) bool // which calls; nil means all
	Times int             // to how many; 0 means to all

	// Hold keeps the call waiting until the gate is opened. Without Err and
	// Lie it then goes its usual way.
	Hold *Gate

	// Err is what the call returns. It has no effect but for the first Partial
	// bytes of a Write or a Zero.
	Err     error
	Partial int64

	// Lie makes a Sync return nil and leave everything volatile, and makes
	// other changes return nil and do nothing.
	Lie bool
}

// Inject adds a fault; remove takes it away again.
func (d *CrashDisk) Inject(f Fault) (remove func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = append(d.faults, &f)
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.faults = slices.DeleteFunc(d.faults, func(other *Fault) bool { return other == &f })
	}
}

// FailNext makes the next calls of an operation, times of them, return err.
func (d *CrashDisk) FailNext(op block.Op, times int, err error) {
	if times > 0 {
		d.Inject(Fault{Match: On(op), Times: times, Err: err})
	}
}

// Heal takes all faults away, and makes all sectors readable.
func (d *CrashDisk) Heal() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = nil
	clear(d.bad)
}

// Unreadable makes reads of the sectors of a range fail until each is written
// or the disk is healed, as a medium does.
func (d *CrashDisk) Unreadable(offset, length int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for s := offset / SectorSize; s*SectorSize < offset+length; s++ {
		d.bad[s] = struct{}{}
	}
}

// FlipBit inverts one bit (0 to 7) of the byte at offset, durably and unasked,
// as bits rot.
func (d *CrashDisk) FlipBit(offset int64, bit uint) {
	d.mu.Lock()
	defer d.mu.Unlock()
	mask := byte(1) << (bit % 8)
	d.current[offset] ^= mask
	d.durable[offset] ^= mask
	for _, v := range d.cache[offset/SectorSize] {
		v.content[offset%SectorSize] ^= mask
	}
}

// do carries out one call: what it meets, what it does, what is counted. The
// effect runs with d.mu held.
func (d *CrashDisk) do(call Call, effect func(Call) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.admit(call.Offset, call.Length); err != nil {
		return err
	}
	d.count(call)
	call.change = d.changes

	fault := d.meet(call)
	if fault == nil {
		return effect(call)
	}
	if fault.Hold != nil {
		if err := d.wait(fault.Hold); err != nil {
			return err
		}
	}
	switch {
	case fault.Err != nil:
		return d.fail(call, fault, effect)
	case fault.Lie:
		return nil
	default:
		return effect(call)
	}
}

// meet returns the fault that a call meets, if any.
func (d *CrashDisk) meet(call Call) *Fault {
	for i, f := range d.faults {
		if f.Match != nil && !f.Match(call) {
			continue
		}
		if f.Times == 1 {
			d.faults = slices.Delete(d.faults, i, i+1)
		} else if f.Times > 1 {
			f.Times--
		}
		return f
	}
	return nil
}

// wait holds a call in a gate, with the disk free for others.
func (d *CrashDisk) wait(g *Gate) error {
	cuts := d.cuts
	d.mu.Unlock()
	g.pass()
	d.mu.Lock()
	switch {
	case d.cuts != cuts:
		return ErrPowerCut
	case d.closed:
		return ErrClosed
	}
	return nil
}

func (d *CrashDisk) fail(call Call, f *Fault, effect func(Call) error) error {
	switch {
	case call.Op == block.Flush:
		d.suspect = true
		for _, versions := range d.cache {
			for i := range lastBefore(versions, call.change) + 1 {
				versions[i].doomed = true
			}
		}
	case call.Op.Changes():
		call.Length = min(f.Partial, call.Length)
		if err := effect(call); err != nil {
			return err
		}
	}
	return f.Err
}

// Gate holds calls until it is opened; an open gate holds nothing. The zero
// Gate is closed.
type Gate struct {
	mu      sync.Mutex
	changed *sync.Cond
	waiting int
	open    bool
}

func (g *Gate) lock() {
	g.mu.Lock()
	if g.changed == nil {
		g.changed = sync.NewCond(&g.mu)
	}
}

func (g *Gate) pass() {
	g.lock()
	defer g.mu.Unlock()
	g.waiting++
	g.changed.Broadcast()
	for !g.open {
		g.changed.Wait()
	}
	g.waiting--
	g.changed.Broadcast()
}

// Open lets all calls pass, now and later.
func (g *Gate) Open() {
	g.lock()
	defer g.mu.Unlock()
	g.open = true
	g.changed.Broadcast()
}

// WaitFor returns when n calls or more are held.
func (g *Gate) WaitFor(n int) {
	g.lock()
	defer g.mu.Unlock()
	for g.waiting < n {
		g.changed.Wait()
	}
}
