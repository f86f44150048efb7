// SPDX-License-Identifier: Apache-2.0

package blocktest

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"

	"github.com/twinbd/twinbd/internal/block"
	"pgregory.net/rapid"
)

func TestContract(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		Contract(t, func(testing.TB) block.Disk { return NewMemory(1<<20 + 777) })
	})
	t.Run("crash disk", func(t *testing.T) {
		Contract(t, func(testing.TB) block.Disk { return NewCrashDisk(1<<20 + 777) })
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func rng(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

func sectors(value byte, n int) []byte { return bytes.Repeat([]byte{value}, n*SectorSize) }

func TestPowerCutTakesOnlyWhatIsNotSynced(t *testing.T) {
	d := NewCrashDisk(64 * SectorSize)
	must(t, d.WriteAt(sectors(1, 8), 0))
	must(t, d.Sync())
	must(t, d.WriteAt(sectors(2, 4), 0))
	must(t, d.Zero(4*SectorSize, 2*SectorSize, true))
	if n := d.Unsynced(); n != 6 {
		t.Errorf("%d sectors unsynced, not 6", n)
	}
	if doubt, lost := d.PowerCut(rng(1), 1); doubt != 6 || lost != 6 {
		t.Errorf("%d of %d lost, not 6 of 6", lost, doubt)
	}
	if want := append(sectors(1, 8), sectors(0, 56)...); !bytes.Equal(d.Snapshot(), want) {
		t.Error("the synced content did not survive")
	}

	must(t, d.WriteAt(sectors(3, 4), 0))
	if doubt, lost := d.PowerCut(rng(1), 0); doubt != 4 || lost != 0 {
		t.Errorf("%d of %d lost, not 0 of 4", lost, doubt)
	}
	if !bytes.Equal(d.Snapshot()[:4*SectorSize], sectors(3, 4)) {
		t.Error("a lucky power cut lost something")
	}
}

// Every sector after a cut holds something that was written to it after the
// last Sync, or what was there then; and over many seeds a write is torn and a
// later write survives an earlier one.
func TestPowerCutTearsAndReorders(t *testing.T) {
	torn, reordered, older := false, false, false
	for seed := range uint64(200) {
		d := NewCrashDisk(8 * SectorSize)
		must(t, d.WriteAt(sectors(1, 4), 0))
		must(t, d.WriteAt(sectors(2, 4), 4*SectorSize))
		must(t, d.WriteAt(sectors(3, 1), 0))
		d.PowerCut(rng(seed), 0.5)
		got := make([]byte, 8)
		for i, b := range d.Snapshot() {
			if i%SectorSize == 0 {
				got[i/SectorSize] = b
			}
			if b != got[i/SectorSize] {
				t.Fatalf("seed %d: sector %d is torn", seed, i/SectorSize)
			}
		}
		torn = torn || got[1] != got[2]
		reordered = reordered || got[1] == 0 && got[5] == 2
		older = older || got[0] == 1
	}
	if !torn || !reordered || !older {
		t.Errorf("torn %t, reordered %t, an older content kept %t", torn, reordered, older)
	}
}

func TestPowerCutIsRepeatable(t *testing.T) {
	cut := func() []byte {
		d := NewCrashDisk(1 << 20)
		r := rng(7)
		for range 100 {
			offset, length := randomRange(r, d.Size())
			p := make([]byte, length)
			fill(r, p)
			must(t, d.WriteAt(p, offset))
		}
		d.PowerCut(r, 0.3)
		return d.Snapshot()
	}
	if !bytes.Equal(cut(), cut()) {
		t.Error("the same seed left another disk")
	}
}

// A model of one sector says what may be there: the last content synced, or any
// since.
func TestPowerCutAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const count = 4
		d := NewCrashDisk(count * SectorSize)
		var allowed [count][]byte
		for i := range allowed {
			allowed[i] = []byte{0}
		}
		r := rng(rapid.Uint64().Draw(t, "seed"))
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				if err := d.Sync(); err != nil {
					t.Fatal(err)
				}
				for i, a := range allowed {
					allowed[i] = a[len(a)-1:]
				}
			case 1:
				d.PowerCut(r, rapid.Float64Range(0, 1).Draw(t, "lose"))
				for i := range allowed {
					got := d.Snapshot()[i*SectorSize]
					if !bytes.Contains(allowed[i], []byte{got}) {
						t.Fatalf("sector %d has %d, not one of %d", i, got, allowed[i])
					}
					allowed[i] = []byte{got}
				}
			default:
				first := rapid.IntRange(0, count-1).Draw(t, "first")
				n := rapid.IntRange(1, count-first).Draw(t, "count")
				value := rapid.Byte().Draw(t, "value")
				if err := d.WriteAt(sectors(value, n), int64(first*SectorSize)); err != nil {
					t.Fatal(err)
				}
				for i := first; i < first+n; i++ {
					allowed[i] = append(allowed[i], value)
				}
			}
		}
	})
}

func TestFailedSyncDoomsWhatItShouldHaveWritten(t *testing.T) {
	d := NewCrashDisk(8 * SectorSize)
	must(t, d.WriteAt(sectors(1, 2), 0))
	d.FailNext(block.Flush, 1, block.IOError)
	if err := d.Sync(); !errors.Is(err, block.IOError) {
		t.Fatalf("sync: %v", err)
	}
	must(t, d.WriteAt(sectors(2, 1), 0)) // written again, so a later Sync takes it
	must(t, d.Sync())                    // a caller that retries is told that all is well
	if got := d.Counts().SyncsAfterFailure; got != 1 {
		t.Errorf("%d syncs after a failure counted, not 1", got)
	}
	d.PowerCut(rng(1), 1)
	if got := d.Snapshot(); got[0] != 2 || got[SectorSize] != 0 {
		t.Errorf("after the cut: %d and %d, not 2 and 0", got[0], got[SectorSize])
	}
}

func TestLies(t *testing.T) {
	d := NewCrashDisk(8 * SectorSize)
	tell := d.Inject(Fault{Match: On(block.Flush), Lie: true})
	must(t, d.WriteAt(sectors(1, 1), 0))
	must(t, d.Sync())
	if d.Durable()[0] != 0 || d.Snapshot()[0] != 1 {
		t.Error("a lying sync wrote, or a read did not see the cache")
	}
	tell()
	must(t, d.Sync())
	if d.Durable()[0] != 1 {
		t.Error("an honest sync did not write")
	}
	d.Inject(Fault{Match: On(block.Write), Lie: true, Times: 1})
	must(t, d.WriteAt(sectors(2, 1), 0))
	if d.Snapshot()[0] != 1 {
		t.Error("a lying write wrote")
	}
}

func TestFaultsMeetTheCallsThatTheyMatch(t *testing.T) {
	bad := errors.New("bad")
	d := NewCrashDisk(64 * SectorSize)
	d.Inject(Fault{Match: Within(1000, 100, block.Write), Err: bad})
	p := make([]byte, 512)
	for _, c := range []struct {
		offset int64
		want   error
	}{{0, nil}, {488, nil}, {489, bad}, {1000, bad}, {1099, bad}, {1100, nil}} {
		if err := d.WriteAt(p, c.offset); err != c.want {
			t.Errorf("write at %d: %v, not %v", c.offset, err, c.want)
		}
		must(t, d.ReadAt(p, c.offset))
	}
	d.Heal()
	must(t, d.WriteAt(p, 1000))

	d.FailNext(block.Trim, 2, bad)
	must(t, d.Zero(0, 512, false))
	for i, want := range []error{bad, bad, nil} {
		if err := d.Zero(0, 512, true); err != want {
			t.Errorf("trim %d: %v, not %v", i, err, want)
		}
	}

	d.Inject(Fault{Match: On(block.Write), Err: bad, Partial: 700, Times: 1})
	if err := d.WriteAt(sectors(9, 2), 0); err != bad {
		t.Errorf("partial write: %v", err)
	}
	if got := d.Snapshot(); got[699] != 9 || got[700] != 0 {
		t.Errorf("partial write of 700: %d, %d", got[699], got[700])
	}

	d.Inject(Fault{Match: func(c Call) bool { return c.Try }, Err: block.ErrWouldBlock})
	if err := d.TryReadAt(p, 0); err != block.ErrWouldBlock {
		t.Errorf("cold read: %v", err)
	}
	must(t, d.ReadAt(p, 0))
}

func TestHeldCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewCrashDisk(8 * SectorSize)
		var gate Gate
		d.Inject(Fault{Match: On(block.Write), Hold: &gate, Times: 1})
		done := make(chan error, 1)
		go func() { done <- d.WriteAt(sectors(1, 1), 0) }()
		gate.WaitFor(1)
		must(t, d.WriteAt(sectors(2, 1), SectorSize)) // others are not held
		if d.Snapshot()[0] != 0 {
			t.Error("a held write took effect")
		}
		gate.Open()
		must(t, <-done)
		if d.Snapshot()[0] != 1 {
			t.Error("a released write took no effect")
		}
	})
}

func TestHeldCallDiesWithThePower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewCrashDisk(8 * SectorSize)
		var gate Gate
		d.Inject(Fault{Match: On(block.Write), Hold: &gate, Times: 1})
		done := make(chan error, 1)
		go func() { done <- d.WriteAt(sectors(1, 1), 0) }()
		gate.WaitFor(1)
		d.PowerCut(rng(1), 0)
		gate.Open()
		if err := <-done; !errors.Is(err, ErrPowerCut) || d.Snapshot()[0] != 0 {
			t.Errorf("%v, and the sector has %d", err, d.Snapshot()[0])
		}
	})
}

func TestHeldSyncTakesOnlyWhatWasBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewCrashDisk(8 * SectorSize)
		must(t, d.WriteAt(sectors(1, 1), 0))
		var gate Gate
		d.Inject(Fault{Match: On(block.Flush), Hold: &gate, Times: 1})
		done := make(chan error, 1)
		go func() { done <- d.Sync() }()
		gate.WaitFor(1)
		must(t, d.WriteAt(sectors(2, 2), 0))
		gate.Open()
		must(t, <-done)
		d.PowerCut(rng(1), 1)
		if got := d.Snapshot(); got[0] != 1 || got[SectorSize] != 0 {
			t.Errorf("after the cut: %d and %d, not 1 and 0", got[0], got[SectorSize])
		}
	})
}

func TestRotAndBadSectors(t *testing.T) {
	d := NewCrashDisk(8 * SectorSize)
	must(t, d.WriteAt(sectors(1, 1), 0))
	d.FlipBit(3, 7)
	if d.Snapshot()[3] != 0x81 {
		t.Error("no rot to be read")
	}
	d.PowerCut(rng(1), 0)
	if d.Snapshot()[3] != 0x81 {
		t.Error("the rot healed")
	}

	d.Unreadable(600, 1)
	p := make([]byte, 512)
	must(t, d.ReadAt(p, 0))
	if err := d.ReadAt(p, 100); block.StatusOf(err) != block.IOError {
		t.Errorf("read of a bad sector: %v", err)
	}
	must(t, d.WriteAt(p, 512))
	must(t, d.ReadAt(p, 100))
}

func TestClosedDiskRefuses(t *testing.T) {
	d := NewCrashDisk(8 * SectorSize)
	must(t, d.WriteAt(sectors(1, 1), 0))
	must(t, d.Close())
	for name, err := range map[string]error{
		"write": d.WriteAt(sectors(1, 1), 0), "read": d.ReadAt(sectors(1, 1), 0), "sync": d.Sync(), "close": d.Close(),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	d.Reopen()
	if d.Snapshot()[0] != 1 || d.Unsynced() != 1 {
		t.Error("the end of a process lost a write, or made it durable")
	}
}

func TestRestore(t *testing.T) {
	d := NewCrashDisk(8 * SectorSize)
	before := d.Snapshot()
	must(t, d.WriteAt(sectors(1, 1), 0))
	must(t, d.Sync())
	d.Restore(before)
	if !bytes.Equal(d.Snapshot(), before) || !bytes.Equal(d.Durable(), before) {
		t.Error("not restored")
	}
}

func TestCounts(t *testing.T) {
	d := NewCrashDisk(8 * SectorSize)
	must(t, d.WriteVectorAt([][]byte{sectors(1, 1), sectors(2, 1)}, 0))
	must(t, d.ReadAt(make([]byte, 10), 0))
	must(t, d.Zero(0, 700, true))
	must(t, d.Sync())
	want := Counts{Reads: 1, Writes: 1, Zeroes: 1, Syncs: 1, ReadBytes: 10, WrittenBytes: 1024, ZeroedBytes: 700}
	if got := d.Counts(); got != want {
		t.Errorf("%+v, not %+v", got, want)
	}
}

func TestFirstDifference(t *testing.T) {
	a, b := NewMemory(3<<20), NewCrashDisk(3<<20)
	if at, err := FirstDifference(a, b); at != -1 || err != nil {
		t.Errorf("equal disks: %d, %v", at, err)
	}
	must(t, b.WriteAt([]byte{1}, 2<<20+77))
	if at, err := FirstDifference(a, b); at != 2<<20+77 || err != nil {
		t.Errorf("%d, %v", at, err)
	}
	if _, err := FirstDifference(a, NewMemory(1)); err == nil {
		t.Error("disks of different sizes compared")
	}
}

func BenchmarkMemoryWrite(b *testing.B) {
	d, p := NewMemory(1<<20), make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if err := d.WriteAt(p, 4096); err != nil {
			b.Fatal(err)
		}
	}
}
