// SPDX-License-Identifier: Apache-2.0

package failover_test

import (
	"strings"
	"testing"

	. "github.com/twinbd/twinbd/failover"
	"github.com/twinbd/twinbd/failover/failovertest"
)

var owner = StateOwner{Cluster: "c", Node: "a", Service: "s"}

const stateName = "state.s"

func openState(t *testing.T, dir Directory) *StateFile {
	t.Helper()
	s, _, err := OpenState(dir, owner)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestStateKeeps(t *testing.T) {
	disk := failovertest.NewDisk(1)
	s := openState(t, disk)
	if s.State() != (NodeState{}) {
		t.Fatalf("a new node knows %+v", s.State())
	}
	for _, n := range []NodeState{
		{},
		{View: View{3, "b", Pair}, Known: 3, InStep: 3},
		{View: View{3, "b", Pair}, Known: 9, InStep: 3, Promise: 9, Maintenance: true, Wanted: WantStop},
		{View: View{4, "a", Alone}, Known: 12, Held: 12, Disowned: 7},
		{View: View{13, "a", Alone}, Known: 13, InStep: 12, Disowned: 12},
	} {
		if err := s.Store(n); err != nil {
			t.Fatal(err)
		}
		disk.PowerCycle()
		if s = openState(t, disk); s.State() != n {
			t.Errorf("stored %+v and has %+v", n, s.State())
		}
	}
}

func TestStateRefusesNonsense(t *testing.T) {
	s := openState(t, failovertest.NewDisk(1))
	good := NodeState{View: View{5, "a", Pair}, Known: 8, InStep: 5, Promise: 8, Disowned: 3}
	if err := s.Store(good); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		change func(*NodeState)
		want   string
	}{
		{func(n *NodeState) { n.View.Epoch = 4 }, "epoch 5, known 8 and disowned 3 would become 4, 8 and 3"},
		{func(n *NodeState) { n.View = View{} }, "none of them falls"},
		{func(n *NodeState) { n.Known, n.Promise = 7, 0 }, "none of them falls"},
		{func(n *NodeState) { n.Disowned = 2 }, "none of them falls"},
		{func(n *NodeState) { n.View.Holder = "b" }, "an epoch has one record"},
		{func(n *NodeState) { n.View.Mode = Alone }, "an epoch has one record"},
		{func(n *NodeState) { n.View.Epoch, n.View.Mode = 6, 0 }, "none is not a mode"},
		{func(n *NodeState) { n.View = View{6, "../a", Pair} }, "cannot name a holder"},
		{func(n *NodeState) { n.View.Epoch = 9 }, "known 8 is below the epoch 9"},
		{func(n *NodeState) { n.InStep = 9 }, "in step 9"},
		{func(n *NodeState) { n.Promise = 9 }, "promise 9"},
		{func(n *NodeState) { n.Held = 9 }, "held 9"},
		{func(n *NodeState) { n.Disowned = 9 }, "disowned 9"},
		{func(n *NodeState) { n.Held = 3 }, "holds the promise 3 and has disowned all up to 3"},
		{func(n *NodeState) { n.View.Epoch, n.Known = MaxEpoch+1, MaxEpoch+1 }, "is above"},
		{func(n *NodeState) { n.Known = MaxEpoch + 1 }, "is above"},
		{func(n *NodeState) { n.Wanted = 2 }, "neither start nor stop"},
	} {
		bad := good
		c.change(&bad)
		if err := s.Store(bad); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", bad, err)
		}
		if s.State() != good {
			t.Fatalf("%+v was taken over", s.State())
		}
	}
	if err := s.Store(NodeState{View: View{6, "b", Alone}, Known: 8, Held: 8, Disowned: 7}); err != nil {
		t.Errorf("after a refusal: %v", err)
	}
}

// stateAt is a state at that epoch, in step or not.
func stateAt(epoch, inStep uint64) NodeState {
	return NodeState{View: View{epoch, "a", Pair}, Known: epoch, InStep: inStep}
}

func TestStateUnusableFile(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(*failovertest.Disk)
		want  string
	}{
		{"both copies rotten", func(d *failovertest.Disk) { d.Rot(stateName, 50); d.Rot(stateName, 4096+50) }, "checksum does not match"},
		{"empty", func(d *failovertest.Disk) { d.Put(stateName, nil) }, "empty"},
		{"a witness's record", func(d *failovertest.Disk) { d.Put(stateName, d.Get(recordFile)) }, "not of this kind"},
		{"another node's", func(d *failovertest.Disk) { d.Put(stateName, otherState()) }, "belongs to service s on node b of cluster c"},
	} {
		t.Run(c.name, func(t *testing.T) {
			disk := failovertest.NewDisk(1)
			change(t, openRegister(t, disk), first)
			if err := openState(t, disk).Store(stateAt(3, 0)); err != nil {
				t.Fatal(err)
			}
			disk.Restart()
			c.spoil(disk)
			_, _, err := OpenState(disk, owner)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "move the file away") {
				t.Errorf("%v", err)
			}
		})
	}
}

func otherState() []byte {
	disk := failovertest.NewDisk(2)
	s, _, _ := OpenState(disk, StateOwner{Cluster: "c", Node: "b", Service: "s"})
	s.Store(stateAt(7, 0))
	return disk.Get(stateName)
}

func TestStateTellsOfDamage(t *testing.T) {
	disk := failovertest.NewDisk(1)
	want := stateAt(3, 3)
	if err := openState(t, disk).Store(want); err != nil {
		t.Fatal(err)
	}
	disk.Restart()
	disk.Rot(stateName, 4096+50)
	s, damaged, err := OpenState(disk, owner)
	if err != nil || damaged == nil || s.State() != want {
		t.Fatalf("%+v, damaged %v, %v", s, damaged, err)
	}
	disk.Restart()
	if _, damaged, err := OpenState(disk, owner); err != nil || damaged != nil {
		t.Errorf("after it was mended: damaged %v, %v", damaged, err)
	}
}

// Whatever step fails, a state that Store took is there, and after a failure
// nothing is taken any more.
func TestStatePowerCutAnywhere(t *testing.T) {
	states := []NodeState{stateAt(1, 0), stateAt(2, 2), stateAt(3, 0)}
	for cut := 1; ; cut++ {
		for seed := range uint64(8) {
			disk := failovertest.NewDisk(seed)
			s := openState(t, disk)
			disk.CutPowerAt(cut)
			taken := 0
			for _, n := range states {
				if s.Store(n) != nil {
					break
				}
				taken++
			}
			if taken == len(states) {
				return
			}
			if err := s.Store(states[2]); err == nil {
				t.Fatalf("cut %d: taken after a failure", cut)
			}
			disk.PowerCycle()
			got := openState(t, disk).State()
			if got != states[taken] && (taken == 0 && got != NodeState{} || taken > 0 && got != states[taken-1]) {
				t.Fatalf("cut %d, seed %d: took %d states and has %+v", cut, seed, taken, got)
			}
		}
	}
}

// A failed flush is not retried: what follows could not be told from what was
// lost.
func TestStateFailedFlush(t *testing.T) {
	for nth := 1; nth <= 3; nth++ { // the file, the directory, the second state
		disk := failovertest.NewDisk(1)
		s := openState(t, disk)
		disk.FailSyncAt(nth)
		first := s.Store(stateAt(1, 0))
		second := s.Store(stateAt(2, 0))
		if (first != nil) != (nth < 3) || second == nil || !strings.Contains(second.Error(), "check the disk") {
			t.Errorf("flush %d: %v, then %v", nth, first, second)
		}
		if err := s.Store(stateAt(3, 0)); err == nil {
			t.Errorf("flush %d: taken after a failure", nth)
		}
		disk.Restart()
		told := openState(t, disk).State()
		disk.PowerCycle()
		if now := openState(t, disk).State(); now != told {
			t.Errorf("flush %d: told %+v and has %+v", nth, told, now)
		}
	}
}
