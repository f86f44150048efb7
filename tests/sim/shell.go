// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"errors"
	"fmt"
	"time"

	"github.com/twinbd/twinbd/failover"
	"github.com/twinbd/twinbd/internal/block"
	shell "github.com/twinbd/twinbd/internal/node"
	"github.com/twinbd/twinbd/mirror"
)

// The shell around the machine, as internal/node has it, without goroutines:
// what is done elsewhere there takes a moment here.

// input is something that happened, as the machine takes it.
type input func(m *failover.Machine, now time.Duration) []failover.Action

// take gives the machine one input and carries out what follows.
func (p *process) take(in input) {
	if p.ended {
		return
	}
	now := p.node.clock()
	p.last = now
	for _, a := range in(&p.machine, now) {
		if p.perform(&a); p.ended {
			return
		}
	}
	p.standing = p.machine.Stands() || p.machine.GoingAlone()
}

// put has an input taken in a moment.
func (p *process) put(in input) { p.after(p.soon(), func() { p.take(in) }) }

// tick is the machine's heartbeat.
func (p *process) tick() {
	p.take(p.look)
	p.take((*failover.Machine).Tick)
	p.after(heartbeat, p.tick)
}

// poke: a volume has changed.
func (p *process) poke() {
	if p.looking {
		return
	}
	p.looking = true
	p.after(p.soon(), func() {
		p.looking = false
		p.take(p.look)
	})
}

func (p *process) perform(a *failover.Action) {
	w := p.node.world
	switch a.Do {
	case failover.DoStore:
		p.store(a.State)
	case failover.DoBeat:
		w.beat(p.node.id, a.Beat)
	case failover.DoQuery:
		q := a.Query
		p.ask(a.Nonce, question{query: &q})
	case failover.DoChange:
		q := a.Request
		w.say("%s asks: %d -> %s %v", p.node.name, q.Replaces, q.Holder, q.Mode)
		p.ask(a.Nonce, question{request: &q})
	case failover.DoRight:
		p.setRight(a.Right, a.Until)
	case failover.DoNames:
		p.recordNamesPeer()
	case failover.DoPromote:
		p.setRight(a.Right, a.Until)
		p.promote(a.Force, !p.machine.PeerAudible())
	case failover.DoDemote:
		p.demote(false)
	case failover.DoExpel:
		p.shut()
		p.demote(true)
	case failover.DoUp:
		p.after(between(w.moods, time.Millisecond, 50*time.Millisecond), func() {
			p.take(func(m *failover.Machine, now time.Duration) []failover.Action { return m.Up(now, nil) })
		})
	case failover.DoDown, failover.DoKill:
		p.down(a.Do == failover.DoKill)
	case failover.DoHide, failover.DoShow:
	case failover.DoConnect:
		p.connect(!a.Off)
	case failover.DoSource:
		p.source(!a.Off)
	case failover.DoEvent:
		w.note(a.Event.Kind, int64(p.node.id))
		w.say("%s %s: %s -> %s (%s)", p.node.name, a.Event.Kind, a.Event.Old, a.Event.New, a.Event.Reason)
	default:
		w.fail("action %v is not known", a.Do)
	}
}

// store makes the node's state durable. A node that cannot ends.
func (p *process) store(state failover.NodeState) {
	n, w := p.node, p.node.world
	if n.fails > 0 {
		n.fails--
		n.dir.FailSyncAt(1)
	}
	if err := p.file.Store(state); err != nil {
		w.say("%s: %v", n.name, err)
		p.shut()
		n.crash(false)
		n.dir.FailSyncAt(0)
		w.after(between(w.moods, 50*time.Millisecond, 3*time.Second), n.boot)
		return
	}
	number, holds := state.Holder(n.name)
	p.each(func(v *volume, _ time.Duration) { v.engine.SetHolder(number, holds) })
}

// source lets volumes be copied to the peer while none is served here.
func (p *process) source(on bool) {
	right := mirror.RightNone
	if on {
		right = mirror.RightAlone
	}
	p.each(func(v *volume, now time.Duration) {
		if !v.engine.NeedsRight() {
			v.engine.SetRight(now, right)
		}
	})
}

// each runs f for every volume on its loop.
func (p *process) each(f func(v *volume, now time.Duration)) {
	for _, v := range p.volumes {
		v.post(func(now time.Duration) { f(v, now) })
	}
}

// setRight: the end of the lease counts at once, the engine learns the right in
// its turn.
func (p *process) setRight(r failover.Right, until time.Duration) {
	right := mirrorRight(r)
	if p.right == mirror.RightAlone || right == mirror.RightAlone {
		p.lone++
	}
	lone := p.lone
	p.right = right
	if right != mirror.RightNone || !p.machine.LeavesInOrder() {
		for _, v := range p.volumes {
			v.lease = until
		}
	}
	if right == mirror.RightAlone {
		p.forgetAsked()
	}
	p.each(func(v *volume, now time.Duration) {
		if v.engine.NeedsRight() && v.engine.Status().Right != right {
			v.engine.SetRight(now, right)
		}
		v.publish()
		if v.heard != lone {
			v.heard = lone
			p.poke()
		}
	})
}

func mirrorRight(r failover.Right) mirror.Right {
	switch r {
	case failover.RightPair:
		return mirror.RightPair
	case failover.RightAlone:
		return mirror.RightAlone
	}
	return mirror.RightNone
}

func (p *process) forgetAsked() {
	for _, v := range p.volumes {
		v.waits = false
	}
}

func (p *process) shut() {
	for _, v := range p.volumes {
		v.lease = 0
	}
}

func (p *process) recordNamesPeer() {
	p.forgetAsked()
	p.each(func(v *volume, now time.Duration) {
		v.engine.RecordNamesPeer(now)
	})
}

func (p *process) connect(on bool) {
	p.standing = !on
	if on {
		return
	}
	p.each(func(v *volume, now time.Duration) {
		v.engine.Bye(now, p.node.name+" has stopped the service")
		v.flushOutput()
		v.engine.Disconnect(now, "the service is stopped here")
	})
}

const (
	promoteTimeout = 30 * time.Second
	promoteRetry   = 5 * time.Millisecond
	flushPatience  = 2 * time.Second
)

// promote makes every volume serve, one after the other, and tells the machine.
func (p *process) promote(force string, silent bool) {
	if silent {
		p.each(func(v *volume, now time.Duration) {
			v.engine.Disconnect(now, p.node.peer().name+" is silent on every path")
		})
	}
	g := &promotion{process: p, force: force, deadline: p.node.clock() + promoteTimeout}
	g.next()
}

// promotion is the goroutine that promotes.
type promotion struct {
	process  *process
	force    string
	deadline time.Duration
	at, done int // volumes asked, and primary
	over     bool
}

func (g *promotion) next() {
	p := g.process
	if g.over {
		return
	}
	if g.at == len(p.volumes) {
		g.wait()
		return
	}
	v := p.volumes[g.at]
	v.post(func(now time.Duration) {
		err := v.engine.Promote(now, p.right, g.force, func() { g.done++ })
		p.after(p.soon(), func() { g.asked(err) })
	})
}

func (g *promotion) asked(err error) {
	p := g.process
	switch again := errors.Is(err, mirror.ErrMeeting) || errors.Is(err, mirror.ErrPeerServes); {
	case err == nil:
		g.at++
		g.next()
	case again && p.node.clock() < g.deadline:
		p.after(promoteRetry, g.next)
	default:
		g.end(fmt.Errorf("volume %d: %w", g.at, err))
	}
}

// wait waits until every volume serves.
func (g *promotion) wait() {
	p := g.process
	switch {
	case g.done == len(p.volumes):
		g.end(nil)
		return
	case p.node.clock() >= g.deadline:
		g.end(errors.New("not in time"))
		return
	}
	for _, v := range p.volumes {
		if why := v.status.DiskFailed; why != "" {
			g.end(errors.New("the disk has failed: " + why))
			return
		}
	}
	p.after(time.Millisecond, g.wait)
}

func (g *promotion) end(err error) {
	g.over = true
	g.process.put(func(m *failover.Machine, now time.Duration) []failover.Action { return m.Promoted(now, err) })
}

// demote stops serving, in order or by force.
func (p *process) demote(force bool) {
	open := len(p.volumes)
	for _, v := range p.volumes {
		v.post(func(now time.Duration) {
			if force {
				v.cutOff()
			}
			told := false
			v.engine.Demote(now, block.ShuttingDown, func() {
				v.letGo()
				if told {
					return
				}
				told = true
				if open--; open == 0 {
					p.put((*failover.Machine).Demoted)
				}
			})
			v.expel()
		})
	}
	p.forgetAsked()
}

// down takes the application down; in order, the volumes are flushed meanwhile,
// twice, or for as long as there is patience.
func (p *process) down(force bool) {
	w := p.node.world
	d := between(w.moods, time.Millisecond, 50*time.Millisecond)
	told := false
	tell := func() {
		if !told {
			told = true
			p.take(func(m *failover.Machine, now time.Duration) []failover.Action { return m.Down(now, nil) })
		}
	}
	if force {
		p.after(d, tell)
		return
	}
	var flush func(rounds int)
	flush = func(rounds int) {
		if rounds == 0 {
			tell()
			return
		}
		open := len(p.volumes)
		for _, v := range p.volumes {
			v.post(func(now time.Duration) {
				v.engine.Flush(now, func() {
					if open--; open == 0 {
						p.after(p.soon(), func() { flush(rounds - 1) })
					}
				})
			})
		}
	}
	p.after(d, func() {
		flush(2)
		p.after(flushPatience, tell)
	})
}

// look tells the machine what the volumes say.
func (p *process) look(m *failover.Machine, now time.Duration) []failover.Action {
	p.stopReplicating(m)
	p.leaveSilent(m)
	seen := make([]shell.Seen, len(p.volumes))
	for i, v := range p.volumes {
		if v.waits && v.asked == mirror.AskAlone && v.status.Session == mirror.Mirroring {
			v.waits = false
		}
		seen[i] = shell.Seen{Status: &v.status, Waits: v.waits, Asked: v.asked, Ahead: v.heard < p.lone, Stuck: v.hung() >= diskTimeout}
	}
	return m.Saw(now, shell.Sum(seen, m.Durable().View.Holder == p.node.name))
}

// stopReplicating: one volume waits for the right to go on alone, so no other
// replicates any more (rule 10).
func (p *process) stopReplicating(m *failover.Machine) {
	asked := false
	p.parting = false
	for _, v := range p.volumes {
		waits := v.waits && v.asked == mirror.AskAlone && m.Serving() && p.right != mirror.RightAlone
		asked = asked || waits
		p.parting = p.parting || waits && v.status.Session == mirror.Comparing
	}
	for _, v := range p.volumes {
		if asked && v.status.Session == mirror.Mirroring && !v.waits {
			v.post(func(now time.Duration) { v.engine.Disconnect(now, "the service goes on alone as a whole") })
		}
	}
}

// leaveSilent: a peer that is silent for the service's timeout is lost.
func (p *process) leaveSilent(m *failover.Machine) {
	if !m.Serving() || m.PeerAudible() {
		return
	}
	for _, v := range p.volumes {
		if st := v.status.Session; v.end != nil && (st == mirror.Mirroring || st == mirror.Resyncing) {
			v.post(func(now time.Duration) { v.engine.Disconnect(now, p.node.peer().name+" is silent on every path") })
		}
	}
}

// command is an operator's word.
func (p *process) command(v failover.Verb) error {
	var err error
	p.take(p.look)
	p.take(func(m *failover.Machine, now time.Duration) (actions []failover.Action) {
		actions, err = m.Command(now, failover.Command{Verb: v, Who: "operator"})
		return actions
	})
	return err
}
