// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"crypto/rand"
	"testing"
	"time"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/internal/block/blocktest"
)

// duo is two engines on memory disks in one process, with nothing random: each
// task is done at once, each byte arrives at once.
type duo struct {
	engines [2]*Engine
	disks   [2][2]block.Disk // data, metadata
	links   [2][2]*Link      // data, bulk
	now     time.Duration
}

const duoSize = 64 << 20

type noArbiter struct{}

func (noArbiter) Ask(Ask) {}

func newDuo(tb testing.TB) *duo {
	d := &duo{}
	for i, name := range [...]string{"alpha", "beta"} {
		h := bitmap.Header{
			Cluster: "c", Volume: "v", Node: name, Peer: [...]string{"beta", "alpha"}[i], DiskID: name, Size: duoSize,
			RegionSize: bitmap.DefaultRegionSize, IntentLimit: bitmap.DefaultIntentLimit, Salt: 1, State: bitmap.Blank,
		}
		l, err := h.Layout()
		if err != nil {
			tb.Fatal(err)
		}
		meta := blocktest.NewMemory(l.Bytes())
		writes, err := bitmap.Format(h)
		if err != nil {
			tb.Fatal(err)
		}
		for w := range writes {
			if err := meta.WriteAt(w.Data, w.Offset); err != nil {
				tb.Fatal(err)
			}
		}
		md, err := bitmap.Load(meta, meta.Size())
		if err != nil {
			tb.Fatal(err)
		}
		d.disks[i] = [2]block.Disk{blocktest.NewMemory(duoSize), meta}
		d.engines[i] = New(Config{
			Cluster: "c", Volume: "v", Node: name, Peer: h.Peer, Incarnation: 1, Random: rand.Reader, Arbiter: noArbiter{},
		}, md)
	}
	if err := d.engines[0].Promote(0, RightAlone, "", func() {}); err != nil {
		tb.Fatal(err)
	}
	for i, e := range d.engines {
		d.links[i][0], d.links[i][1] = e.Connect(0)
	}
	d.run()
	if d.engines[0].session.state != Mirroring || d.engines[1].session.state != Mirroring {
		tb.Fatalf("not mirrored: %+v", d.engines[0].Status())
	}
	return d
}

// run moves bytes and carries out tasks until nothing is left.
func (d *duo) run() {
	for more := true; more; {
		more = false
		for i, e := range d.engines {
			for k, l := range d.links[i] {
				more = pass(l, d.links[1-i][k]) || more
			}
			for tasks := e.Tasks(); len(tasks) > 0; tasks = e.Tasks() {
				for _, t := range tasks {
					t.Err = carryOut(d.disks[i][t.Target], t)
					e.Finished(d.now, t)
				}
				more = true
			}
		}
	}
}

func pass(from, to *Link) (any bool) {
	for _, b := range from.Output() {
		n := 0
		for n < len(b) {
			k := copy(to.Room(), b[n:])
			if k == 0 {
				break // it takes more when it is done with what it has
			}
			if to.Received(k) != nil {
				return false
			}
			n += k
		}
		from.Sent(n)
		any = any || n > 0
		if n < len(b) {
			break
		}
	}
	return any
}

func carryOut(d block.Disk, t *block.Task) error {
	switch t.Op {
	case block.Read:
		return d.ReadAt(t.Data, t.Offset)
	case block.Write:
		return d.WriteAt(t.Data, t.Offset)
	case block.Trim, block.WriteZeroes:
		return d.Zero(t.Offset, t.Length, t.Punch)
	case block.Flush:
		return d.Sync()
	}
	return nil
}

// load is a batch of requests that is submitted again and again.
type load struct {
	batch block.Batch
	done  int
	bad   int
}

func (l *load) Complete(r *block.Request) {
	l.done++
	if r.Status != block.OK {
		l.bad++
	}
}

func newLoad(op block.Op, flags block.Flags, depth int) *load {
	l := &load{}
	for i := range depth {
		r := &block.Request{Op: op, Flags: flags, Offset: int64(i) * 3 * block.Size, Length: block.Size, Owner: l}
		r.Record = make([]byte, block.RecordHeader+block.Size)
		r.Data = r.Record[block.RecordHeader:]
		block.PutRecord(r.Record, op, flags, 0, r.Offset, r.Length)
		l.batch.Requests = append(l.batch.Requests, r)
	}
	return l
}

// turn submits the batch and waits for it. From time to time a tick flushes.
func (d *duo) turn(l *load) {
	d.now += time.Millisecond
	d.engines[0].Submit(d.now, &l.batch)
	d.run()
	if d.now%TickEvery == 0 {
		for _, e := range d.engines {
			e.Tick(d.now)
		}
		d.run()
	}
}

var loads = []struct {
	name  string
	op    block.Op
	flags block.Flags
	depth int
}{
	{"write", block.Write, 0, 1}, {"write, 16 deep", block.Write, 0, 16}, {"write with FUA", block.Write, block.FUA, 4},
	{"read", block.Read, 0, 1}, {"read, 16 deep", block.Read, 0, 16}, {"flush", block.Flush, 0, 2},
}

// TestNoAllocationPerRequest: a machine that is short of memory writes its
// dirty pages to us; asking for memory then would never end.
func TestNoAllocationPerRequest(t *testing.T) {
	for _, c := range loads {
		d, l := newDuo(t), newLoad(c.op, c.flags, c.depth)
		for range 4000 {
			d.turn(l)
		}
		if n := testing.AllocsPerRun(2000, func() { d.turn(l) }); n != 0 {
			t.Errorf("%s: %v allocations in a turn", c.name, n)
		}
		if l.bad > 0 || l.done != 6001*c.depth {
			t.Errorf("%s: %d done, %d of them with an error", c.name, l.done, l.bad)
		}
	}
}

func BenchmarkEngine(b *testing.B) {
	for _, c := range loads {
		b.Run(c.name, func(b *testing.B) {
			d, l := newDuo(b), newLoad(c.op, c.flags, c.depth)
			for range 4000 {
				d.turn(l)
			}
			b.ReportAllocs()
			for b.Loop() {
				d.turn(l)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*c.depth), "ns/request")
		})
	}
}
