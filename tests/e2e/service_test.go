// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/nbd"
	"github.com/twinbd/twinbd/tests/harness"
)

// churn writes to a volume without pause until the function that it returns is
// called, which fails the test if a write has failed.
func churn(t *testing.T, c *nbd.Client, seed byte) (stop func()) {
	t.Helper()
	quit := make(chan struct{})
	var wg sync.WaitGroup
	var once sync.Once
	for w := range 4 {
		wg.Go(func() {
			p := pattern(seed+byte(w), 12<<10)
			for i := int64(w); ; i += 4 {
				select {
				case <-quit:
					return
				default:
				}
				if err := c.WriteAt(p, i%128*16<<10, 0); err != nil {
					t.Errorf("write: %v", err)
					return
				}
			}
		})
	}
	stop = func() { once.Do(func() { close(quit); wg.Wait() }) }
	t.Cleanup(stop)
	return stop
}

// Two volumes are one service: they go alone together and are a pair together.
func TestTwoVolumes(t *testing.T) {
	lab := harness.NewPair(t, harness.Options{Volumes: []string{"logs", "tables"}})
	for round := range 3 {
		var stops []func()
		for i, v := range lab.Volumes() {
			stops = append(stops, churn(t, lab.Alpha.Dial(t, v), byte(16*round+i)))
		}
		lab.Beta.Kill(t)
		lab.Alpha.WaitState(t, control.Alone)
		lab.Beta.Start(t)
		lab.WaitPaired(t, lab.Alpha)
		for _, stop := range stops {
			stop()
		}
		for _, v := range lab.Volumes() {
			if s := lab.Alpha.Volume(t, v); s.Counters.ResyncedBytes == 0 {
				t.Errorf("round %d: nothing of %s was copied", round, v)
			}
		}
		lab.SameDisks(t)
	}
}

// Stopped in good order, a node leaves nothing to be copied; whoever returns first.
func TestGracefulStopNeedsNoResync(t *testing.T) {
	lab := harness.NewPair(t, harness.Options{})
	clean := func(when string) {
		t.Helper()
		for _, n := range lab.Nodes() {
			if v := n.Volume(t, data); v.DirtyBlocks != 0 || v.Counters.ResyncedBytes != 0 {
				t.Errorf("%s: %s has %d dirty blocks and copied %d bytes", when, n.Name, v.DirtyBlocks, v.Counters.ResyncedBytes)
			}
		}
	}
	stop := churn(t, lab.Alpha.Dial(t, data), 1)
	harness.WaitFor(t, "writes", patience, func() error {
		if w := lab.Alpha.Volume(t, data).Counters.Writes; w < 1000 {
			return fmt.Errorf("%d so far", w)
		}
		return nil
	})
	stop()
	put(t, lab.Alpha.Dial(t, data), 0, pattern(9, 4096))

	lab.Beta.Stop(t)
	lab.Alpha.WaitState(t, control.Alone)
	lab.Beta.Start(t)
	lab.WaitPaired(t, lab.Alpha)
	clean("the secondary returned")

	lab.Alpha.Stop(t)
	lab.Beta.WaitServing(t)
	lab.Alpha.Start(t)
	lab.WaitPaired(t, lab.Beta)
	clean("the primary returned")

	lab.Alpha.Stop(t)
	lab.Beta.Stop(t)
	lab.SameDisks(t)
	lab.Alpha.Start(t)
	lab.Beta.Start(t)
	lab.WaitPaired(t, lab.Beta)
	clean("both returned, the secondary stopped and started first")

	lab.Beta.Stop(t)
	lab.Alpha.Stop(t)
	lab.SameDisks(t)
	lab.Beta.Start(t)
	lab.Alpha.Start(t)
	lab.WaitPaired(t, lab.WaitServing(t))
	clean("both returned, the primary stopped first")
}

// Under load, a primary that is told to stop hands the service over, and its
// clients are let go. That costs no timeout, which here would be longer than any
// test waits.
func TestGracefulStopUnderLoad(t *testing.T) {
	lab := harness.NewPair(t, harness.Options{Pace: `{ heartbeat = "100ms", timeout = "5m" }`})
	c := lab.Alpha.Dial(t, data)
	quit := make(chan error, 1)
	go func() {
		p := pattern(1, 64<<10)
		for i := int64(0); ; i++ {
			if err := c.WriteAt(p, i%256*64<<10, 0); err != nil {
				quit <- err
				return
			}
		}
	}()
	harness.WaitFor(t, "writes", patience, func() error {
		if w := lab.Alpha.Volume(t, data).Counters.Writes; w < 100 {
			return fmt.Errorf("%d so far", w)
		}
		return nil
	})
	lab.Alpha.Stop(t)
	if err := <-quit; err == nil {
		t.Error("a client of a stopped node went on")
	}
	lab.Beta.WaitServing(t)
	lab.Alpha.Start(t)
	lab.WaitPaired(t, lab.Beta)
	if v := lab.Beta.Volume(t, data); v.Counters.ResyncedBytes != 0 {
		t.Errorf("a primary that stopped in good order was resynced: %d bytes", v.Counters.ResyncedBytes)
	}
}

// A verify finds what changed behind everybody's back, and repairs it on demand.
func TestVerify(t *testing.T) {
	lab := harness.NewPair(t, harness.Options{Region: "64KiB"})
	put(t, lab.Alpha.Dial(t, data), 0, pattern(1, 8<<20))
	if out := lab.Alpha.MustRun(t, "verify", data); !strings.Contains(out.Stdout, "no block differs") {
		t.Errorf("verify of equal disks: %s", out)
	}
	restart := func() {
		t.Helper()
		lab.Alpha.Start(t)
		lab.Beta.Start(t)
		lab.WaitPaired(t, lab.Alpha)
	}
	lab.Beta.Stop(t)
	lab.Alpha.Stop(t)
	for _, offset := range []int64{4096*100 + 17, 4096 * 101, 20 << 20} {
		harness.Patch(t, lab.Beta.Disk(data), offset, []byte("rot"))
	}
	restart()
	lab.Beta.Refused(t, []string{"verify", data}, "alpha serves the volume: run it there")

	out := lab.Alpha.Run(t, "verify", data)
	if out.Code != 1 || !strings.Contains(out.Stderr, "3 blocks (12 KiB) differ between the disks") {
		t.Errorf("verify of disks with 3 other blocks: %s", out)
	}
	out = lab.Alpha.Run(t, "status")
	if !strings.Contains(out.Stdout, "3 blocks differ") {
		t.Errorf("the status does not speak of what the verify has found: %s", out)
	}
	lab.Alpha.MustRun(t, "verify", data, "--repair")
	lab.WaitPaired(t, lab.Alpha)
	lab.SameDisks(t)

	lab.Beta.Stop(t)
	lab.Alpha.Stop(t)
	harness.Patch(t, lab.Beta.Disk(data), 12<<20, []byte("rot again"))
	restart()
	lab.Alpha.Run(t, "verify", data) // marks them
	lab.Alpha.MustRun(t, "resync", data)
	lab.WaitPaired(t, lab.Alpha)
	lab.SameDisks(t)
}

// A full resync copies every block, and mends what no mark knows of.
func TestFullResync(t *testing.T) {
	lab := harness.NewPair(t, harness.Options{})
	put(t, lab.Alpha.Dial(t, data), 0, pattern(1, 8<<20))
	lab.Beta.Stop(t)
	lab.Alpha.Stop(t)
	harness.Patch(t, lab.Beta.Disk(data), 7<<20, []byte("rot"))
	lab.Alpha.Start(t)
	lab.Beta.Start(t)
	lab.WaitPaired(t, lab.Alpha)
	stop := churn(t, lab.Alpha.Dial(t, data), 3)
	lab.Alpha.MustRun(t, "resync", data, "--full")
	stop()
	lab.WaitPaired(t, lab.Alpha)
	if v := lab.Alpha.Volume(t, data); v.Counters.ResyncedBytes < uint64(lab.Size()) {
		t.Errorf("a full resync copied %d of %d bytes", v.Counters.ResyncedBytes, lab.Size())
	}
	lab.SameDisks(t)
	lab.Alpha.Refused(t, []string{"resync", data}, "no block is marked as different")
	lab.Beta.Refused(t, []string{"resync", data}, "this node does not serve the volume")
}

// Metadata can be looked at while the node runs, and says what a status says.
func TestInspect(t *testing.T) {
	lab := harness.NewPair(t, harness.Options{})
	put(t, lab.Alpha.Dial(t, data), 0, pattern(1, 4096))
	for _, n := range lab.Nodes() {
		out := n.MustRun(t, "inspect", data).Stdout
		for _, want := range []string{"data", "lab", n.Name + ", peer " + lab.Other(n).Name, "consistent", "dirty        0 of 8192 blocks", n.Volume(t, data).Generation} {
			if !strings.Contains(out, want) {
				t.Errorf("inspect on %s does not say %q:\n%s", n.Name, want, out)
			}
		}
	}
	lab.Beta.Kill(t)
	put(t, lab.Alpha.Dial(t, data), 0, pattern(2, 3*4096))
	lab.Alpha.WaitState(t, control.Alone)
	lab.Alpha.Stop(t)
	if out := lab.Alpha.MustRun(t, "inspect").Stdout; !strings.Contains(out, "dirty        3 of 8192 blocks") {
		t.Errorf("inspect does not know the three blocks that were written alone:\n%s", out)
	}
}

// The exit code is the state, for scripts.
func TestStatusCodes(t *testing.T) {
	lab := harness.NewPair(t, harness.Options{})
	code := func(n *harness.Node, want int) {
		t.Helper()
		if out := n.Run(t, "status", "--exit-code"); out.Code != want {
			t.Errorf("status of %s, want exit code %d: %s", n.Name, want, out)
		}
	}
	code(lab.Alpha, 13)
	code(lab.Beta, 14)
	var status control.Status
	if err := json.Unmarshal([]byte(lab.Alpha.MustRun(t, "status", "--json").Stdout), &status); err != nil || status.Services[0].State != control.Primary {
		t.Errorf("status --json: %v, %+v", err, status)
	}
	lab.Beta.Kill(t)
	lab.Alpha.WaitState(t, control.Alone)
	code(lab.Alpha, 12)
	lab.Alpha.Kill(t)
	code(lab.Alpha, 1)
	lab.Beta.Start(t)
	code(lab.Beta, 11)
}

// A hung secondary costs its timeout, not the service; when it wakes up it is
// brought up to date. A hung primary is taken over from; when it wakes up it may
// not go on, and answers nobody, not even a read that came while it hung.
func TestFreeze(t *testing.T) {
	lab := harness.NewPair(t, harness.Options{Service: `peer-timeout = "500ms"`})
	stop := churn(t, lab.Alpha.Dial(t, data), 1)
	lab.Beta.Freeze(t)
	lab.Alpha.WaitState(t, control.Alone)
	stop()
	put(t, lab.Alpha.Dial(t, data), 16<<20, pattern(7, 4096))
	lab.Beta.Thaw(t)
	lab.WaitPaired(t, lab.Alpha)
	lab.SameDisks(t)

	client := lab.Alpha.Dial(t, data)
	put(t, client, 20<<20, pattern(7, 4096))
	lab.Alpha.Freeze(t)
	late := make(chan error, 1)
	go func() { late <- client.ReadAt(make([]byte, 4096), 20<<20) }()
	lab.Beta.WaitServing(t)
	put(t, lab.Beta.Dial(t, data), 20<<20, pattern(8, 4096))
	lab.Alpha.Thaw(t)
	if err := <-late; err == nil {
		t.Error("alpha answered a read after beta took over")
	}
	lab.WaitPaired(t, lab.Beta)
	holds(t, lab.Beta.Dial(t, data), 20<<20, pattern(8, 4096))
	lab.SameDisks(t)
	if c, err := nbd.Dial(t.Context(), lab.Alpha.URI(data), nil); err == nil {
		c.Close()
		t.Error("alpha serves after beta took over")
	}
}
