// SPDX-License-Identifier: Apache-2.0

//go:build linux

package drive

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/nbd"
	"github.com/twinbd/twinbd/nbd/nbdtest"
)

// Export is the name under which a drive is served.
const Export = "drive"

// SectorSize is what a drive writes all or not at all, in bytes.
const SectorSize = 512

// Drive is a disk with a volatile write cache, as an NBD server. Its content is in
// a file, which outlives the test when it fails.
type Drive struct {
	Socket string // a Unix socket; the export is called Export
	Data   []byte // the file, mapped: what reads return

	// older is what a cut may bring back: what a sector held before each of its
	// changes since the last flush, oldest first. The first of them is durable. The
	// server's lock guards it, and Data.
	older map[int64][][]byte

	server *nbdtest.Server
	off    func() error // ends the server; nil while the power is off
}

// New makes a drive of size bytes of zeroes, without power.
func New(t testing.TB, path string, size int64) *Drive {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatalf("map %s: %v", path, err)
	}
	return &Drive{Socket: path + ".sock", Data: data, older: make(map[int64][][]byte)}
}

// PowerOn makes the drive answer.
func (d *Drive) PowerOn(t testing.TB) {
	t.Helper()
	listener, err := net.Listen("unix", d.Socket)
	if err != nil {
		t.Fatal(err)
	}
	engine := &nbdtest.Engine{Data: d.Data, Fail: d.note}
	d.server = nbdtest.NewServer(engine)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	shake := nbd.HandshakeConfig{Exports: nbdtest.Exports{{Name: Export, Size: int64(len(d.Data))}}}
	go func() { ended <- d.server.Serve(ctx, listener, nbd.NewGate(nbd.GateConfig{}), shake) }()
	d.off = func() error {
		cancel()
		return <-ended
	}
}

// PowerOff ends all connections: what a cut has left unanswered fails.
func (d *Drive) PowerOff(t testing.TB) {
	t.Helper()
	if d.off == nil {
		return
	}
	if err := d.off(); err != nil {
		t.Errorf("serve %s: %v", d.Socket, err)
	}
	d.off = nil
}

// Free gives the memory back. The power must be off.
func (d *Drive) Free(t testing.TB) {
	t.Helper()
	if err := unix.Munmap(d.Data); err != nil {
		t.Errorf("unmap %s: %v", d.Socket, err)
	}
}

// URI is where the drive is served.
func (d *Drive) URI() string { return "nbd+unix:///" + Export + "?socket=" + d.Socket }

// note keeps what a request is about to overwrite. The engine asks it before it
// carries out each.
func (d *Drive) note(r *block.Request) block.Status {
	switch r.Op {
	case block.Flush:
		if len(d.older) > 0 { // not clear: a map that was large once would stay so
			d.older = make(map[int64][][]byte)
		}
	case block.Write, block.WriteZeroes, block.Trim:
		for s := r.Offset / SectorSize; s*SectorSize < r.Offset+r.Length; s++ {
			if r.Flags&block.FUA != 0 {
				delete(d.older, s)
			} else {
				d.older[s] = append(d.older[s], bytes.Clone(d.Sector(s)))
			}
		}
	}
	return block.OK
}

// Sector is the content of a sector; the last may be short.
func (d *Drive) Sector(s int64) []byte {
	return d.Data[s*SectorSize : min((s+1)*SectorSize, int64(len(d.Data)))]
}

// Loss is what a cut has done to a drive, in sectors.
type Loss struct{ Doubt, Lost int }

func (l Loss) String() string { return fmt.Sprintf("%d of %d", l.Lost, l.Doubt) }

// Cut makes the drive lose, of each sector that is not durable, the last content
// with the probability lose; then the one before, and so on. From then on it answers
// nothing, until it has been off.
func (d *Drive) Cut(random *rand.Rand, lose float64) (l Loss) {
	d.server.Do(func(e *nbdtest.Engine) {
		e.Hold = true
		l.Doubt = len(d.older)
		for _, s := range slices.Sorted(maps.Keys(d.older)) {
			older := d.older[s]
			kept := len(older)
			for kept > 0 && random.Float64() < lose {
				kept--
			}
			if kept < len(older) {
				copy(d.Sector(s), older[kept])
				l.Lost++
			}
		}
		d.older = make(map[int64][][]byte)
	})
	return l
}

// Volatile is the first sector below limit, in bytes, that a cut could change, or -1.
func (d *Drive) Volatile(limit int64) (first int64) {
	first = -1
	d.server.Do(func(*nbdtest.Engine) {
		for s, older := range d.older {
			same := func(o []byte) bool { return bytes.Equal(o, d.Sector(s)) }
			if s*SectorSize < limit && (first < 0 || s < first) && !allOf(older, same) {
				first = s
			}
		}
	})
	return first
}

func allOf[T any](list []T, is func(T) bool) bool {
	return !slices.ContainsFunc(list, func(x T) bool { return !is(x) })
}
