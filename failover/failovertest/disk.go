// SPDX-License-Identifier: Apache-2.0

package failovertest

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/twinbd/twinbd/failover"
)

// The errors that a Disk makes.
var (
	ErrPower = errors.New("power is off")
	ErrSync  = errors.New("flush failed")
)

// sector is the unit in bytes that reaches the disk whole or not at all. It is
// smaller than a real one, so that small records tear too.
const sector = 64

// Disk is a failover.Directory in memory, as hostile as a real one may be:
//
//   - What was not flushed when power goes is there, gone or torn, each write
//     and each name by itself.
//   - What a failed flush was about is read back, but no later flush makes it
//     durable: only writing it again does.
//
// Calls may overlap.
type Disk struct {
	mu     sync.Mutex
	random *rand.Rand

	names   map[string]*content // as seen
	durable map[string]*content // as after a power cut
	pending [][]rename          // changes of names, not flushed; each happens as a whole

	calls    int
	powerAt  int // the call that finds power off; 0: none
	syncAt   int // the call of Sync that fails; 0: none
	syncs    int
	power    bool
	lifetime int // open files of an earlier one are dead
}

// content is a file. seen is what is read back.
type content struct {
	seen    []byte
	durable []byte
	pending []write
}

type write struct {
	offset int64
	data   []byte
}

// rename is one name that is to mean a content, or nothing.
type rename struct {
	name string
	to   *content
}

// NewDisk returns an empty disk. The seed decides what a power cut leaves.
func NewDisk(seed uint64) *Disk {
	return &Disk{
		random:  rand.New(rand.NewPCG(seed, seed)),
		names:   map[string]*content{},
		durable: map[string]*content{},
		power:   true,
	}
}

var _ failover.Directory = (*Disk)(nil)

// CutPowerAt makes the n-th call from now, and all that follow, fail with
// ErrPower; 0 takes it back.
func (d *Disk) CutPowerAt(n int) { d.mu.Lock(); d.calls, d.powerAt = 0, n; d.mu.Unlock() }

// FailSyncAt makes the n-th flush from now fail, of a file or of names; 0 takes
// it back.
func (d *Disk) FailSyncAt(n int) { d.mu.Lock(); d.syncs, d.syncAt = 0, n; d.mu.Unlock() }

// Calls is the number of calls since the last CutPowerAt.
func (d *Disk) Calls() int { d.mu.Lock(); defer d.mu.Unlock(); return d.calls }

// Restart is what the next process finds after a crash of the last one, without
// a power cut: everything, flushed or not. Open files are dead.
func (d *Disk) Restart() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lifetime++
	d.powerAt, d.syncAt, d.power = 0, 0, true
}

// PowerCycle is Restart after a power cut.
func (d *Disk) PowerCycle() {
	d.Restart()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, change := range d.pending {
		if d.random.IntN(2) == 0 {
			setNames(d.durable, change)
		}
	}
	d.pending = nil
	d.names = maps.Clone(d.durable)
	for _, name := range slices.Sorted(maps.Keys(d.names)) { // in order, for the seed's sake
		d.settle(d.names[name])
	}
}

// settle decides what is left of a file.
func (d *Disk) settle(c *content) {
	for _, w := range c.pending {
		fate := d.random.IntN(3) // gone, whole or torn
		for at := 0; at < len(w.data); at += sector {
			if fate == 1 || fate == 2 && d.random.IntN(2) == 0 {
				c.durable = put(c.durable, w.data[at:min(at+sector, len(w.data))], w.offset+int64(at))
			}
		}
	}
	c.pending = nil
	c.seen = slices.Clone(c.durable)
}

// Rot changes one byte of a file, durably.
func (d *Disk) Rot(name string, offset int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.names[name]
	if c == nil || offset >= int64(len(c.seen)) || offset >= int64(len(c.durable)) {
		panic(fmt.Sprintf("failovertest: no byte %d in %q", offset, name))
	}
	c.seen[offset] ^= 0x55
	c.durable[offset] ^= 0x55
}

// Put makes a file with that content, durably.
func (d *Disk) Put(name string, data []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := &content{seen: slices.Clone(data), durable: slices.Clone(data)}
	d.names[name], d.durable[name] = c, c
}

// Get returns a copy of a file's content, nil when there is none.
func (d *Disk) Get(name string) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.names[name]; c != nil {
		return slices.Clone(c.seen)
	}
	return nil
}

// enter begins every call, under the lock.
func (d *Disk) enter() error {
	d.calls++
	if d.calls == d.powerAt {
		d.power = false
	}
	if !d.power {
		return ErrPower
	}
	return nil
}

// Names is part of failover.Directory, as are the next methods.
func (d *Disk) Names() ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.enter(); err != nil {
		return nil, err
	}
	names := make([]string, 0, len(d.names))
	for name := range d.names {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// Open opens a file.
func (d *Disk) Open(name string) (failover.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.enter(); err != nil {
		return nil, err
	}
	c := d.names[name]
	if c == nil {
		return nil, fmt.Errorf("open %s: %w", name, fs.ErrNotExist)
	}
	return &file{d, c, d.lifetime}, nil
}

// Create makes an empty file.
func (d *Disk) Create(name string) (failover.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.enter(); err != nil {
		return nil, err
	}
	c := &content{}
	d.change(rename{name, c})
	return &file{d, c, d.lifetime}, nil
}

// Rename gives a file another name. The two names change together or not at all.
func (d *Disk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.enter(); err != nil {
		return err
	}
	c := d.names[from]
	if c == nil {
		return fmt.Errorf("rename %s: %w", from, fs.ErrNotExist)
	}
	d.change(rename{to, c}, rename{from, nil})
	return nil
}

func (d *Disk) change(r ...rename) {
	setNames(d.names, r)
	d.pending = append(d.pending, r)
}

func setNames(names map[string]*content, change []rename) {
	for _, r := range change {
		if r.to == nil {
			delete(names, r.name)
		} else {
			names[r.name] = r.to
		}
	}
}

// Sync makes the names durable.
func (d *Disk) Sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.enterSync(); err != nil {
		if errors.Is(err, ErrSync) {
			d.pending = nil
		}
		return err
	}
	for _, change := range d.pending {
		setNames(d.durable, change)
	}
	d.pending = nil
	return nil
}

func (d *Disk) enterSync() error {
	if err := d.enter(); err != nil {
		return err
	}
	if d.syncs++; d.syncs == d.syncAt {
		return ErrSync
	}
	return nil
}

// Close does nothing.
func (d *Disk) Close() error { return nil }
