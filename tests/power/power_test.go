// SPDX-License-Identifier: Apache-2.0

//go:build linux

package power

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/twinbd/twinbd/nbd"
	"github.com/twinbd/twinbd/tests/drive"
	"github.com/twinbd/twinbd/tests/harness"
)

// The two volumes of the service.
const (
	raw   = "raw"
	files = "files"
	size  = 24 << 20
)

// story is one pair that lives through all cuts.
type story struct {
	t        *testing.T
	lab      *harness.Lab
	random   *rand.Rand
	machines map[*harness.Node]*machine
	ledger   *ledger
	database *database
	primary  *machine
	client   *nbd.Client // of the raw volume; the ledger's
	cuts     int
	sectors  drive.Loss // of all cuts
}

// newStory makes a whole pair on drives.
func newStory(t *testing.T, seed uint64) *story {
	t.Helper()
	lab := harness.NewLab(t, harness.Options{Volumes: []string{raw, files}, Size: size, Region: "64KiB", Intents: 32, Pace: `"fast"`})
	s := &story{t: t, lab: lab, random: rand.New(rand.NewPCG(seed, 0)), machines: make(map[*harness.Node]*machine),
		ledger: newLedger(size), database: &database{dir: lab.Dir}}
	t.Cleanup(s.end)
	for _, n := range lab.Nodes() {
		m := newMachine(t, lab, n, fork(s.random))
		s.machines[n] = m
		m.powerOn(t)
		m.MustRun(t, "create", "--blank")
	}
	lab.Start(t)
	lab.Alpha.MustRun(t, "prim", harness.Service)
	lab.WaitPaired(t, lab.Alpha)
	s.serveFrom(s.machines[lab.Alpha])
	return s
}

// end takes everything apart, whatever has happened, and keeps what a failure left.
func (s *story) end() {
	if s.client != nil {
		s.client.Close()
	}
	for _, m := range s.machines {
		if s.t.Failed() {
			s.t.Logf("the last of the log of %s:\n%s", m.Name, m.Tail(40))
		}
		if s.t.Failed() && m.Running() {
			m.Kill(s.t) // so that its drives stay as they were found
		}
		m.Stop(s.t)
	}
	s.database.crash(s.t)
	for _, m := range s.machines {
		m.unplug(s.t)
		for _, d := range m.drives() {
			d.Free(s.t)
		}
	}
	if s.lab.Witness != nil {
		s.lab.Witness.Stop(s.t)
	}
	if s.t.Failed() {
		keep := filepath.Join(os.TempDir(), "twinbd-power-"+filepath.Base(s.lab.Dir))
		if err := os.Rename(s.lab.Dir, keep); err != nil {
			s.t.Error(err)
		}
		s.t.Logf("drives and logs are kept in %s", keep)
	}
}

// TestPower cuts and cuts.
func TestPower(t *testing.T) {
	need(t, "mkfs.ext4", "fsck.ext4", "sqlite3")
	seed := newSeed(t)
	s := newStory(t, seed)
	kinds := s.kinds()
	began := time.Now()
	more := func() bool {
		if *timeFlag > 0 {
			return time.Since(began) < *timeFlag
		}
		return s.cuts < *cutsFlag
	}
	for round := 0; more(); round++ {
		// The first rounds have each kind once, so that few rounds miss none.
		cut := kinds[round%len(kinds)]
		if round >= len(kinds) {
			cut = kinds[s.random.IntN(len(kinds))]
		}
		from := time.Now()
		s.ledger.newRound(s.random)
		s.load()
		what := cut()
		s.settle(what)
		t.Logf("round %2d: %-64s %3d cuts so far, %.1f s", round+1, what, s.cuts, time.Since(from).Seconds())
		if t.Failed() {
			t.Fatalf("round %d of seed %d", round+1, seed)
		}
	}
	t.Logf("%d power cuts in %.0f s: %v sectors in doubt were lost; %d writes and %d commits were answered",
		s.cuts, time.Since(began).Seconds(), s.sectors, s.ledger.written(), s.database.commits())
}

// serveFrom connects to a machine, which is the primary now.
func (s *story) serveFrom(m *machine) {
	if s.client != nil {
		s.client.Close()
	}
	s.primary, s.client = m, m.Dial(s.t, raw)
}

func (s *story) secondary() *machine { return s.machines[s.lab.Other(s.primary.Node)] }

// load lets both clients work for a random while.
func (s *story) load() {
	s.t.Helper()
	s.database.open(s.t, s.random, s.primary.URI(files))
	s.ledger.start(s.client, s.random.Uint64())
	s.elapse(500 * time.Millisecond)
}

func (s *story) elapse(atMost time.Duration) {
	harness.Elapse(time.Duration(s.random.Int64N(int64(atMost))))
}

func (s *story) coin() bool { return s.random.IntN(2) == 0 }

// cut cuts the power of machines at once.
func (s *story) cut(victims ...*machine) {
	s.t.Helper()
	for _, l := range cutPower(s.t, s.random, victims...) {
		s.sectors.Doubt += l.Doubt
		s.sectors.Lost += l.Lost
	}
	s.cuts++
}

// acknowledged waits until both clients of who serves are answered again.
func (s *story) acknowledged() {
	s.t.Helper()
	writes, commits := s.ledger.written()+writers+1, s.database.commits()+2
	harness.WaitFor(s.t, "acknowledged writes", patience, func() error {
		if err := s.database.failed(); err != nil {
			s.t.Fatalf("SQLite, while %s serves: %v", s.primary.Name, err)
		}
		if w, c := s.ledger.written(), s.database.commits(); w < writes || c < commits {
			return fmt.Errorf("%d writes of %d, %d commits of %d; %s: %s", w, writes, c, commits, s.primary.Name, s.primary.Service(s.t).Reason)
		}
		return nil
	})
}

// clientsDie: who served them has lost its power, and the database ran there.
func (s *story) clientsDie() {
	s.t.Helper()
	s.ledger.stop() // it has lost its server
	s.database.crash(s.t)
}

// again connects to who serves, holds the ledger against a promise, and lets both
// clients work there. The database holds itself against its commits.
func (s *story) again(m *machine, kept promise, what string) {
	s.t.Helper()
	s.serveFrom(m)
	if err := s.ledger.check(s.client, kept); err != nil {
		s.t.Fatalf("%s: %s has lost writes:\n%v", what, m.Name, err)
	}
	s.load()
}

// settle brings the clients to rest and holds what must be so after each round: all
// that was acknowledged is there, and a flush has made all of it durable on both.
func (s *story) settle(what string) {
	s.t.Helper()
	s.lab.WaitPaired(s.t, s.primary.Node)
	if err := s.ledger.stop(); err != nil {
		s.t.Fatalf("%s: a client of %s saw: %v", what, s.primary.Name, err)
	}
	s.database.close(s.t)
	if err := errors.Join(s.ledger.flush(s.client), s.flushFiles()); err != nil {
		s.t.Fatalf("%s: flush: %v", what, err)
	}
	s.compare(what)
	if err := s.ledger.check(s.client, s.ledger.acked); err != nil {
		s.t.Errorf("%s: %s has lost writes:\n%v", what, s.primary.Name, err)
	}
	for _, m := range s.machines {
		if out := harness.Run(s.t, "fsck.ext4", "-fn", m.path(files+".drive")); out.Code != 0 {
			s.t.Errorf("%s: fsck of the disk of %s: %s", what, m.Name, out)
		}
		if n := m.Volume(s.t, raw).DirtyBlocks + m.Volume(s.t, files).DirtyBlocks; n != 0 {
			s.t.Errorf("%s: %s still has %d dirty blocks", what, m.Name, n)
		}
	}
}

// compare holds that the drives of both machines have the same, and that no cut can
// change any of it.
func (s *story) compare(what string) {
	s.t.Helper()
	alpha, beta := s.machines[s.lab.Alpha], s.machines[s.lab.Beta]
	for i, a := range alpha.volumes {
		b := beta.volumes[i]
		for m, d := range map[*machine]*drive.Drive{alpha: a.drive, beta: b.drive} {
			if at := d.Volatile(size); at >= 0 {
				s.t.Errorf("%s: after a flush a cut could change sector %d of %s on %s", what, at, a.name, m.Name)
			}
		}
		if !bytes.Equal(a.drive.Data[:size], b.drive.Data[:size]) {
			s.t.Errorf("%s: the disks of %s differ", what, a.name)
		}
	}
}

// flushFiles flushes the volume of the file system, which nobody has mounted.
func (s *story) flushFiles() error {
	c, err := nbd.Dial(s.t.Context(), s.primary.URI(files), nil)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Flush()
}
