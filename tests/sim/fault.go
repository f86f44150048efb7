// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"time"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/failover"
	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/mirror"
)

// faultKind is something that goes wrong, or that an operator does.
type faultKind uint8

const (
	crashProcess faultKind = iota
	powerCut
	powerCutBoth
	freeze
	hangLoop
	cutPeers
	cutOneWay
	cutWitness
	isolate
	halfOpen
	slowLink
	witnessDies
	witnessPower
	witnessDeaf
	witnessMoody
	slowDisk
	writeFails
	flushFails
	readFails
	diskDies
	diskHangs
	metadataFails
	flushLies
	stateFails
	bitChanges
	oldFrame
	switchRoles
	stopStart
	restart
	verifies
	copiesAll
	faultKinds
)

var faultNames = [faultKinds]string{
	"process crashes", "power is cut", "power is cut at both", "process freezes", "call hangs in a turn", "link is cut", "link is cut one way",
	"node loses the witness", "node is isolated", "half-open connections", "link is slow", "witness dies", "witness loses power",
	"witness's answers are lost", "witness refuses", "disk is slow", "write fails", "flush fails", "read fails", "disk dies", "disk hangs",
	"metadata fails", "flush lies, then power is cut", "state cannot be stored", "bit changes on the way", "frame of an old session",
	"operator switches", "operator stops and starts", "daemon is restarted in order",
	"operator verifies", "operator asks for a full resync",
}

func (k faultKind) String() string { return faultNames[k] }

// fault is one of the plan.
type fault struct {
	number int
	kind   faultKind
	node   int
	volume int
	wait   time.Duration       // after the one before
	aim    mirror.SessionState // it waits for a session in this state; Disconnected: for none
	lasts  time.Duration
}

func (f *fault) String() string {
	s := fmt.Sprintf("%d: %v (%s, volume %d) for %v", f.number, f.kind, places[f.node], f.volume, f.lasts.Round(time.Millisecond))
	if f.aim != mirror.Disconnected {
		s += ", at " + f.aim.String()
	}
	return s
}

// strike lets a fault happen, and end by itself.
func (w *world) strike(f *fault) {
	if !w.possible(f) {
		w.say("fault %d cannot happen now: half-open connections instead", f.number)
		f.kind = halfOpen
		if !w.possible(f) {
			return
		}
	}
	w.stats.Faults++
	w.stats.Kinds[f.kind]++
	if w.meeting() {
		w.stats.Aimed++
	}
	w.note("fault", int64(f.number))
	w.say("FAULT %v", f)
	w.plan.active++
	undo := w.begin(f)
	w.after(f.lasts, func() {
		w.plan.active--
		if undo != nil {
			w.say("end of fault %d", f.number)
			undo()
		}
	})
}

// possible reports whether a fault would change anything. A disk does not fail when
// what it holds would be gone for good: then little is left to be checked.
func (w *world) possible(f *fault) bool {
	n := w.nodes[f.node]
	p := n.process
	switch f.kind {
	case crashProcess, powerCut, powerCutBoth, freeze, restart, stopStart:
		return p != nil && !p.frozen
	case hangLoop:
		return p != nil && !p.volumes[f.volume].hanging
	case halfOpen:
		return p != nil && p.volumes[f.volume].end != nil && p.volumes[f.volume].end.open > 0
	case writeFails, flushFails, readFails, diskDies, diskHangs, metadataFails, flushLies:
		return p != nil && w.spare(n)
	case witnessDies, witnessPower:
		return w.witness.register != nil
	}
	return true
}

// meeting reports whether some volume is in a handshake or a resync.
func (w *world) meeting() bool {
	for _, n := range w.nodes {
		if p := n.process; p != nil {
			for _, v := range p.volumes {
				switch v.engine.Status().Session {
				case mirror.Draining, mirror.Greeting, mirror.Comparing, mirror.Resyncing, mirror.Hosting:
					return true
				}
			}
		}
	}
	return false
}

// begin does what a fault is, and returns what ends it.
func (w *world) begin(f *fault) (undo func()) {
	n := w.nodes[f.node]
	p, o := n.process, 1-f.node
	switch f.kind {
	case crashProcess:
		n.crash(false)
		return n.boot
	case powerCut:
		n.crash(true)
		return n.boot
	case powerCutBoth:
		n.crash(true)
		w.nodes[o].crash(true)
		w.after(between(w.moods, 0, f.lasts), w.nodes[o].boot)
		return n.boot
	case cutPeers:
		return w.cuts([2]int{alpha, beta}, [2]int{beta, alpha})
	case cutOneWay:
		return w.cuts([2]int{f.node, o})
	case cutWitness:
		return w.cuts([2]int{f.node, third}, [2]int{third, f.node})
	case isolate:
		return w.cuts([2]int{f.node, third}, [2]int{third, f.node}, [2]int{alpha, beta}, [2]int{beta, alpha})
	case slowLink:
		d := between(w.moods, 5*time.Millisecond, 2*time.Second)
		w.lines[f.node][o].slow += d
		return func() { w.lines[f.node][o].slow -= d }
	case witnessDies, witnessPower:
		w.stopWitness(f.kind == witnessPower)
		return func() {
			if w.witness.register == nil {
				w.startWitness()
			}
		}
	case witnessDeaf:
		w.witness.deaf++
		return func() { w.witness.deaf-- }
	case witnessMoody:
		w.witness.moody++
		return func() { w.witness.moody-- }
	case bitChanges:
		w.volumes[f.volume].spoil++
		return func() { w.volumes[f.volume].spoil = 0 }
	case stateFails:
		n.fails = 1
		return func() { n.fails = 0 }
	}
	if p != nil {
		return w.beginAt(f, p)
	}
	return nil
}

// beginAt is begin of a fault of a process that runs.
func (w *world) beginAt(f *fault, p *process) (undo func()) {
	v := p.volumes[f.volume]
	switch f.kind {
	case freeze:
		p.freeze()
		return p.thaw
	case hangLoop:
		v.hang(f.lasts)
	case halfOpen:
		v.end.mute, v.end.peer.mute = true, true
		v.run(func() {
			v.engine.Disconnect(p.node.clock(), "cut")
			v.dispatch()
		})
	case oldFrame:
		v.ledger.haunts++
		return func() { v.ledger.haunts = 0 }
	case switchRoles:
		for _, q := range w.running() {
			_ = q.command(failover.CommandSwitch) // refused where it makes no sense
		}
	case stopStart:
		_ = p.command(failover.CommandStop)
		return func() {
			if q := p.node.process; q != nil {
				q.run(func() { _ = q.command(failover.CommandStart) })
			}
		}
	case restart:
		p.quit()
	case verifies, copiesAll:
		for _, q := range w.running() {
			v := q.volumes[f.volume]
			v.post(func(now time.Duration) { // refused where it makes no sense
				if f.kind == verifies {
					_ = v.engine.Verify(now, true)
				} else if v.engine.Primary() {
					_ = v.engine.Resync(now, true)
				}
			})
		}
	case slowDisk:
		p.node.stores[f.volume].slow = true
		return func() { p.node.stores[f.volume].slow = false }
	default:
		return w.breakDisk(f, p)
	}
	return nil
}

func (w *world) running() (all []*process) {
	for _, n := range w.nodes {
		if n.process != nil && !n.process.frozen {
			all = append(all, n.process)
		}
	}
	return all
}

func (w *world) cuts(lines ...[2]int) (undo func()) {
	for _, l := range lines {
		w.cutLine(l[0], l[1])
	}
	return func() {
		for _, l := range lines {
			w.mendLine(l[0], l[1])
		}
	}
}

// reset ends the connections of a volume; both nodes hear of it.
func (w *world) reset(l *ledger) {
	w.say("the connections of volume %d are reset", l.id)
	for _, n := range w.nodes {
		if n.process == nil {
			continue
		}
		if e := n.process.volumes[l.id].end; e != nil && !e.peer.closed {
			e.reset()
		}
	}
}

// quit ends a process in good order, and starts another (rule 24).
func (p *process) quit() {
	w, n := p.node.world, p.node
	if p.frozen {
		return
	}
	_ = p.command(failover.CommandQuit)
	end := n.clock() + 10*time.Second
	var look func()
	look = func() {
		if !p.machine.Gone() && n.clock() < end {
			p.after(20*time.Millisecond, look)
			return
		}
		for _, v := range p.volumes {
			v.engine.Bye(n.clock(), n.name+" stops")
			v.flushOutput()
			v.engine.Disconnect(n.clock(), "this node stops")
		}
		n.crash(false)
		w.after(between(w.moods, 10*time.Millisecond, 3*time.Second), n.boot)
	}
	look()
}

// breakDisk makes a disk fail.
func (w *world) breakDisk(f *fault, p *process) (undo func()) {
	s := p.node.stores[f.volume]
	op := [...]block.Op{block.Write, block.Flush}[w.moods.IntN(2)]
	switch f.kind {
	case writeFails:
		s.faults = append(s.faults, diskFault{target: block.Data, op: block.Write})
	case flushFails:
		s.faults = append(s.faults, diskFault{target: block.Data, op: block.Flush})
	case readFails:
		s.faults = append(s.faults, diskFault{target: block.Data, op: block.Read})
	case metadataFails:
		s.faults = append(s.faults, diskFault{target: block.Metadata, op: op})
	case diskDies:
		s.faults = append(s.faults, diskFault{any: true})
	case diskHangs:
		s.hung[block.Data] = true
		s.hung[block.Metadata] = w.moods.IntN(2) == 0
		return func() { s.hung = [2]bool{} }
	case flushLies:
		s.faults = append(s.faults, diskFault{target: block.Data, op: block.Flush, lie: true})
		return func() {
			if len(s.faults) > 0 && w.spare(p.node) {
				p.node.crash(true)
				w.after(between(w.moods, 10*time.Millisecond, 3*time.Second), p.node.boot)
			}
			s.faults = nil
		}
	}
	return nil
}

// spare reports whether the other node has a whole copy of everything, and this one
// is not about to acknowledge more by itself.
func (w *world) spare(n *node) bool {
	o := n.peer()
	if n.process == nil || o.process == nil {
		return false
	}
	for i, l := range w.volumes {
		mine, theirs := n.process.volumes[i].engine.Status(), o.process.volumes[i].engine.Status()
		s := o.stores[i]
		if mine.DiskFailed != "" || mine.Session != mirror.Mirroring && !theirs.Primary {
			return false
		}
		if theirs.DiskFailed != "" || theirs.State != bitmap.Consistent || s.hung != [2]bool{} || len(s.faults) > 0 || !l.whole(s) {
			return false
		}
	}
	return true
}

// disarm takes back what has not happened to a disk: it may be the last copy now.
func (w *world) disarm() {
	for _, n := range w.nodes {
		for _, s := range n.stores {
			kept := s.faults[:0]
			for _, f := range s.faults {
				if f.any {
					kept = append(kept, f) // it is dead
				}
			}
			s.faults = kept
		}
	}
}
