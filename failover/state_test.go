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
		{Epoch: 3, Holder: "b", InStep: 3},
		{Epoch: 4, Holder: "a", Promise: 9, Maintenance: true, Wanted: WantStop},
		{Epoch: 4},
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
	good := NodeState{Epoch: 5, Holder: "a", InStep: 5}
	if err := s.Store(good); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		state NodeState
		want  string
	}{
		{NodeState{Epoch: 4}, "epoch 5 would be lowered to 4"},
		{NodeState{Epoch: 5, InStep: 6}, "above the highest known"},
		{NodeState{Epoch: MaxEpoch + 1}, "is above"},
		{NodeState{Epoch: 5, Promise: MaxEpoch + 1}, "is above"},
		{NodeState{Epoch: 5, Wanted: 2}, "neither start nor stop"},
		{NodeState{Epoch: 5, Holder: "../a"}, "cannot name a holder"},
	} {
		if err := s.Store(c.state); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.state, err)
		}
		if s.State() != good {
			t.Fatalf("%+v was taken over", s.State())
		}
	}
	if err := s.Store(NodeState{Epoch: 6}); err != nil {
		t.Errorf("after a refusal: %v", err)
	}
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
			if err := openState(t, disk).Store(NodeState{Epoch: 3}); err != nil {
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
	s.Store(NodeState{Epoch: 7})
	return disk.Get(stateName)
}

func TestStateTellsOfDamage(t *testing.T) {
	disk := failovertest.NewDisk(1)
	want := NodeState{Epoch: 3, InStep: 3}
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
	states := []NodeState{{Epoch: 1}, {Epoch: 2, InStep: 2}, {Epoch: 3}}
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
		first := s.Store(NodeState{Epoch: 1})
		second := s.Store(NodeState{Epoch: 2})
		if (first != nil) != (nth < 3) || second == nil || !strings.Contains(second.Error(), "check the disk") {
			t.Errorf("flush %d: %v, then %v", nth, first, second)
		}
		if err := s.Store(NodeState{Epoch: 3}); err == nil {
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
