// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
)

// Wanted is what the operator last said about a service on this node.
type Wanted uint8

// The operator's words.
const (
	WantStart Wanted = 0
	WantStop  Wanted = 1
)

func (w Wanted) String() string {
	switch w {
	case WantStart:
		return "start"
	case WantStop:
		return "stop"
	}
	return fmt.Sprintf("wanted %d", uint8(w))
}

// NodeState is what a node durably knows of itself and one service. The zero
// NodeState is that of a node that has just been installed.
type NodeState struct {
	Epoch  uint64 // the highest that this node knows; never lowered
	Holder string // the holder that it last knew; "" for none

	// InStep is the epoch in which this node, as the secondary, was told that
	// it is consistent and has everything; 0 when it is not in step. It is what
	// a request to take over names.
	InStep uint64

	// Promise is the number of the promise not to serve that binds this node,
	// 0 when none does.
	Promise uint64

	Maintenance bool // no automatic failover, no checks
	Wanted      Wanted
}

// check refuses a state that contradicts itself, or takes back what old says.
func (n *NodeState) check(old NodeState) error {
	switch {
	case n.Epoch < old.Epoch:
		return fmt.Errorf("epoch %d would be lowered to %d", old.Epoch, n.Epoch)
	case n.Epoch > MaxEpoch || n.Promise > MaxEpoch:
		return fmt.Errorf("epoch %d or promise %d is above %d", n.Epoch, n.Promise, uint64(MaxEpoch))
	case n.InStep > n.Epoch:
		return fmt.Errorf("in step in epoch %d, which is above the highest known, %d", n.InStep, n.Epoch)
	case n.Wanted > WantStop:
		return fmt.Errorf("%v is neither start nor stop", n.Wanted)
	case n.Holder != "":
		return CheckName("holder", n.Holder)
	}
	return nil
}

// stateKind is the form of a node state's file: cluster, node and service, each
// a name as in a message; epoch 8, in step 8, promise 8, holder: name, wanted 1,
// flags 1 (1: maintenance).
var stateKind = slotKind{magic: 0x7477_6264_4e6f_6431, version: 1} // "twbdNod1"

const flagMaintenance = 1 << 0

// StateOwner says whose a state is. The file is called "state.SERVICE".
type StateOwner struct{ Cluster, Node, Service string }

func (o StateOwner) fileName() string { return "state." + o.Service }

func (o StateOwner) String() string {
	return fmt.Sprintf("service %s on node %s of cluster %s", o.Service, o.Node, o.Cluster)
}

// StateFile keeps a NodeState on stable storage. Calls may not overlap.
type StateFile struct {
	dir   Directory
	owner StateOwner
	slots *slotFile // nil before the first Store
	state NodeState
	lost  error // a Store failed: nobody knows what is on the disk
}

// OpenState loads the owner's state from dir, which stays the caller's. Without a
// file the state is zero. A file that is damaged, of a newer version or another
// owner's is an error and stays as it is. The state may be used when one of two
// copies was damaged; damaged then says which, for the log.
func OpenState(dir Directory, owner StateOwner) (s *StateFile, damaged error, err error) {
	if err := checkNames(owner.Cluster, owner.Service, owner.Node); err != nil {
		return nil, nil, err
	}
	s = &StateFile{dir: dir, owner: owner}
	slots, payload, damaged, err := openSlots(dir, owner.fileName(), stateKind)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil, nil
	}
	if err == nil {
		s.slots = slots
		s.state, err = decodeState(payload, owner)
	}
	if err != nil {
		s.Close()
		return nil, nil, fmt.Errorf("load state of %v: %w; hint: move the file away if it is lost or another's: "+
			"this node then has to be in step again before it may take over", owner, err)
	}
	return s, damaged, nil
}

// State is what was last loaded or stored.
func (s *StateFile) State() NodeState { return s.state }

// Store makes a state durable, and is free when nothing changed. After an error
// of the disk every later Store fails, and State must not be relied on.
func (s *StateFile) Store(n NodeState) error {
	if s.lost != nil {
		return s.lost
	}
	if err := n.check(s.state); err != nil {
		return fmt.Errorf("store state of %v: %w", s.owner, err)
	}
	if s.slots != nil && n == s.state {
		return nil
	}
	if err := s.write(appendState(nil, s.owner, n)); err != nil {
		s.lost = fmt.Errorf("store state of %v: %w; hint: check the disk, then restart this node", s.owner, err)
		return s.lost
	}
	s.state = n
	return nil
}

func (s *StateFile) write(payload []byte) (err error) {
	if s.slots == nil {
		s.slots, err = createSlots(s.dir, s.owner.fileName(), stateKind, 0, payload)
		return err
	}
	return s.slots.store(payload)
}

// Close closes the file.
func (s *StateFile) Close() error {
	if s.slots == nil {
		return nil
	}
	return s.slots.close()
}

func appendState(b []byte, o StateOwner, n NodeState) []byte {
	b = appendName(b, o.Cluster)
	b = appendName(b, o.Node)
	b = appendName(b, o.Service)
	b = binary.BigEndian.AppendUint64(b, n.Epoch)
	b = binary.BigEndian.AppendUint64(b, n.InStep)
	b = binary.BigEndian.AppendUint64(b, n.Promise)
	b = appendName(b, n.Holder)
	return append(b, byte(n.Wanted), flagIf(n.Maintenance, flagMaintenance))
}

func decodeState(b []byte, owner StateOwner) (n NodeState, err error) {
	d := decoder{b: b}
	found := StateOwner{Cluster: d.name(), Node: d.name(), Service: d.name()}
	n.Epoch, n.InStep, n.Promise = d.uint64(), d.uint64(), d.uint64()
	n.Holder, n.Wanted = d.name(), Wanted(d.uint8())
	n.Maintenance = d.flags(flagMaintenance)&flagMaintenance != 0
	if err := d.end("state"); err != nil {
		return NodeState{}, err
	}
	if found != owner {
		return NodeState{}, fmt.Errorf("the file %s belongs to %v", owner.fileName(), found)
	}
	return n, n.check(NodeState{})
}
