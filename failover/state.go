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
	// View is the newest record that this node knows; its epoch never falls.
	View View

	// Known is the highest number that this node knows, was told, has promised
	// by or has asked for; at least View.Epoch. It never falls, and what this
	// node asks for next is above it.
	Known uint64

	// InStep is the epoch in which this node, as the secondary, was told that
	// it is consistent and has everything; 0 when it never was.
	InStep uint64

	// Promise is the number of the promise not to serve that binds this node,
	// 0 when none does.
	Promise uint64

	// Held is the number of the peer's promise that this node holds: it may go
	// on alone by it. 0 for none.
	Held uint64

	// Disowned is the highest number of a promise that this node has given up,
	// or will never take.
	Disowned uint64

	Maintenance bool // no automatic failover, no checks
	Wanted      Wanted
}

// Holder says whether a node that knows this is the holder, as of which number: the
// record's epoch, or that of a promise that is above it (rule 19). Of two nodes the
// one that knows the higher number is right.
func (n *NodeState) Holder(node string) (number uint64, mine bool) {
	switch v := &n.View; {
	case n.Held > v.Epoch && n.Held > n.Promise:
		return n.Held, true
	case n.Promise > v.Epoch:
		return n.Promise, false
	default:
		return v.Epoch, v.Holder == node
	}
}

// check refuses a state that contradicts itself, or takes back what old says.
func (n *NodeState) check(old NodeState) error {
	if err := n.View.check(); err != nil {
		return err
	}
	switch {
	case n.View.Epoch < old.View.Epoch || n.Known < old.Known || n.Disowned < old.Disowned:
		return fmt.Errorf("epoch %d, known %d and disowned %d would become %d, %d and %d; none of them falls",
			old.View.Epoch, old.Known, old.Disowned, n.View.Epoch, n.Known, n.Disowned)
	case n.View.Epoch == old.View.Epoch && n.View != old.View:
		return fmt.Errorf("%v would become %v, and an epoch has one record", old.View, n.View)
	case n.Known > MaxEpoch:
		return fmt.Errorf("known %d is above %d", n.Known, uint64(MaxEpoch))
	case n.Known < max(n.View.Epoch, n.InStep, n.Promise, n.Held, n.Disowned):
		return fmt.Errorf("known %d is below the epoch %d, in step %d, promise %d, held %d or disowned %d",
			n.Known, n.View.Epoch, n.InStep, n.Promise, n.Held, n.Disowned)
	case n.Held != 0 && n.Held <= n.Disowned:
		return fmt.Errorf("holds the promise %d and has disowned all up to %d", n.Held, n.Disowned)
	case n.Wanted > WantStop:
		return fmt.Errorf("%v is neither start nor stop", n.Wanted)
	}
	return nil
}

// stateKind is the form of a node state's file: cluster, node and service, each
// a name as in a message; view as in a message; known, in step, promise, held and
// disowned, 8 each; wanted 1, flags 1 (1: maintenance).
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
	b = n.View.append(b)
	for _, number := range []uint64{n.Known, n.InStep, n.Promise, n.Held, n.Disowned} {
		b = binary.BigEndian.AppendUint64(b, number)
	}
	return append(b, byte(n.Wanted), flagIf(n.Maintenance, flagMaintenance))
}

func decodeState(b []byte, owner StateOwner) (n NodeState, err error) {
	d := decoder{b: b}
	found := StateOwner{Cluster: d.name(), Node: d.name(), Service: d.name()}
	n.View = d.view()
	n.Known, n.InStep, n.Promise, n.Held, n.Disowned = d.uint64(), d.uint64(), d.uint64(), d.uint64(), d.uint64()
	n.Wanted = Wanted(d.uint8())
	n.Maintenance = d.flags(flagMaintenance)&flagMaintenance != 0
	if err := d.end("state"); err != nil {
		return NodeState{}, err
	}
	if found != owner {
		return NodeState{}, fmt.Errorf("the file %s belongs to %v", owner.fileName(), found)
	}
	return n, n.check(NodeState{})
}
