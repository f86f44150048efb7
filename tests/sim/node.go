// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"slices"
	"time"

	"github.com/twinbd/twinbd/failover"
	"github.com/twinbd/twinbd/failover/failovertest"
	"github.com/twinbd/twinbd/mirror"
)

// node is one machine: what is on its disks, and the process on it, if any.
type node struct {
	world   *world
	id      int
	name    string
	skew    time.Duration // of its clock
	rate    float64
	powered bool
	cut     time.Duration // when it last lost its power
	dir     *failovertest.Disk
	stores  [2]*store // of the volumes
	process *process  // nil: down
	random  filler
	fails   int                // its state cannot be stored, so many times
	last    failover.NodeState // what it had stored when its process ended
}

func newNode(w *world, id int) *node {
	n := &node{
		world: w, id: id, name: places[id], powered: true,
		skew: time.Duration(id+1) * 3e4 * time.Hour,
		rate: 0.97 + 0.06*w.disks.Float64(),
		dir:  failovertest.NewDisk(w.opt.Seed + uint64(id) + 1),
	}
	n.random = filler{w.disks}
	for i, l := range w.volumes {
		n.stores[i] = newStore(n, l)
	}
	return n
}

func (n *node) peer() *node { return n.world.nodes[1-n.id] }

// clock is the node's. No two clocks run alike.
func (n *node) clock() time.Duration {
	return n.skew + time.Duration(float64(n.world.now)*n.rate)
}

// process is the daemon of a node: the machine that decides who serves, and the
// volumes. What it does it does in turns; frozen it does nothing.
type process struct {
	node    *node
	boot    uint64
	machine failover.Machine
	file    *failover.StateFile
	volumes [2]*volume
	ended   bool
	frozen  bool
	held    []func() // what happened while it was frozen

	asking   uint64 // the exchange with the witness under way
	right    mirror.Right
	lone     uint64 // words to the volumes on being alone
	standing bool   // no volume may connect
	parting  bool   // likewise
	looking  bool   // a look is on its way
	last     time.Duration
}

// boot starts the daemon.
func (n *node) boot() {
	w := n.world
	if n.process != nil {
		return
	}
	w.boots++
	n.powered = true
	w.note("boot", int64(n.id), int64(w.boots))
	w.say("%s boots", n.name)
	file, _, err := failover.OpenState(n.dir, failover.StateOwner{Cluster: "sim", Node: n.name, Service: "db"})
	w.must(err)
	p := &process{node: n, boot: w.boots, file: file}
	n.process = p
	for i, s := range n.stores {
		p.volumes[i] = newVolume(p, s)
		state := file.State()
		p.volumes[i].engine.SetHolder(state.Holder(n.name))
	}
	p.machine = failover.NewMachine(failover.Settings{
		Service: "db", Node: n.name, Peer: n.peer().name, Heartbeat: heartbeat, Timeout: timeout, Arbiter: failover.ByWitness,
	}, p.boot, n.clock(), file.State())
	for _, v := range p.volumes {
		v.dispatch()
		v.tick()
		if n.id == alpha {
			v.dial()
		}
	}
	p.tick()
}

// crash ends the daemon. Without power the caches of the disks go too.
func (n *node) crash(power bool) {
	w, p := n.world, n.process
	if p != nil {
		w.note("crash", int64(n.id))
		w.say("%s crashes, power %t", n.name, power)
		p.ended, n.process, n.last = true, nil, p.file.State()
		for _, v := range p.volumes {
			v.died(power)
		}
		n.dir.Restart()
	}
	for _, s := range n.stores {
		power = power || s.suspect // only a power cut shows what is left
	}
	if power {
		n.powered, n.cut = false, w.now
		n.dir.PowerCycle()
	}
	for _, s := range n.stores {
		s.crash(power)
	}
	n.fails = 0
	w.reckon()
}

// freeze stops the process for a while; thaw lets it go on with all that has
// come meanwhile.
func (p *process) freeze() {
	p.frozen, p.node.world.trouble = true, p.node.world.now
	p.node.world.note("freeze", int64(p.node.id))
	p.node.world.say("%s freezes", p.node.name)
}

func (p *process) thaw() {
	if p.ended || !p.frozen {
		return
	}
	p.frozen, p.node.world.trouble = false, p.node.world.now
	p.node.world.say("%s goes on", p.node.name)
	held := p.held
	p.held = nil
	for _, f := range held {
		p.run(f)
	}
}

// still reports whether the process, or what serves one of its volumes, stands still:
// so it is not heard, or says that another may serve (rule 8).
func (p *process) still() bool {
	return p.frozen || slices.ContainsFunc(p.volumes[:], func(v *volume) bool { return v.hanging })
}

// run does something in the process, or when it goes on.
func (p *process) run(f func()) {
	switch {
	case p.ended:
	case p.frozen:
		p.held = append(p.held, f)
	default:
		f()
	}
}

// after does something in the process in a while.
func (p *process) after(d time.Duration, f func()) {
	p.node.world.after(d, func() { p.run(f) })
}

// soon is how long it takes until another goroutine has its turn.
func (p *process) soon() time.Duration {
	return between(p.node.world.moods, time.Microsecond, 150*time.Microsecond)
}
