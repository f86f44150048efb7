// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"fmt"
	"slices"
)

// What a driver of the world can choose beside letting things go on. Faults and
// operators' words cost something; ending a fault is free.

type choice struct {
	do   deed
	a, b uint8
}

type deed uint8

const (
	goOn       deed = iota
	loseNext        // the message that is due
	delayNext       // it is put aside
	doubleNext      // it arrives, and again later
	crashNext       // the node dies after b of the actions that follow
	powerNext       // and loses its power
	arrive          // what was put aside, number a
	vanish          // it never arrives
	crash
	power
	restart
	freeze
	thaw
	cutLine
	cutBoth
	slowLine
	healLine
	healBoth
	isolate
	breakSession // one node loses it
	stallData
	freeData
	failDisk
	failWitness
	bringWitness
	write
	writeFlushed
	opStop
	opStopAll
	opStart
	opSwitch
)

var deeds = [...]string{"go on", "lose", "delay", "double", "crash after", "power cut after", "arrive", "vanish", "crash", "power cut", "restart", "freeze", "thaw",
	"cut", "cut both ways", "slow", "heal", "heal both ways", "isolate", "break session at", "stall data", "free data", "fail disk of", "stop witness", "start witness",
	"write", "write and flush", "stop", "stop all", "start", "switch"}

func (c choice) String() string {
	switch c.do {
	case cutLine, cutBoth, slowLine, healLine, healBoth:
		return fmt.Sprintf("%s %s>%s", deeds[c.do], places[c.a], places[c.b])
	case crash, power, restart, freeze, thaw, isolate, breakSession, failDisk, opStop, opStopAll, opStart, opSwitch:
		return deeds[c.do] + " " + places[c.a]
	case write, writeFlushed:
		return fmt.Sprintf("%s w%d at %s", deeds[c.do], c.b, places[c.a])
	case arrive, vanish, crashNext, powerNext:
		return fmt.Sprintf("%s %d", deeds[c.do], c.a)
	}
	return deeds[c.do]
}

// budget is what a driver may still choose.
type budget struct {
	all                   uint8 // of everything together
	faults, words, writes uint8
	disks                 uint8
}

// take takes a choice from the budget, or says that there is not enough.
func (b *budget) take(c choice) bool {
	switch c.do {
	case goOn, arrive, vanish, restart, thaw, healLine, healBoth, freeData, bringWitness, opStart:
		return true
	}
	if !spend(&b.all) {
		return false
	}
	switch c.do {
	case opStop, opStopAll, opSwitch:
		return spend(&b.words)
	case write, writeFlushed:
		return spend(&b.writes)
	case failDisk:
		return spend(&b.disks) && spend(&b.faults)
	}
	return spend(&b.faults)
}

func spend(n *uint8) bool {
	if *n == 0 {
		return false
	}
	*n--
	return true
}

const maxAside = 3

// choices are all that can be chosen now, the first being to go on.
func (w *world) choices(b budget, list []choice) []choice {
	add := func(d deed, x, y int) {
		c := choice{d, uint8(x), uint8(y)}
		if left := b; left.take(c) {
			list = append(list, c)
		}
	}
	list = append(list, choice{})
	for k := range w.aside {
		add(arrive, k, 0)
		if w.aside[k].network() {
			add(vanish, k, 0)
		}
	}
	if len(w.queue) > 0 {
		w.nextChoices(add)
		return list
	}
	for i := range w.nodes {
		w.nodeChoices(i, b, add)
	}
	for x := range places {
		for y := range places {
			switch {
			case x == y:
			case w.lines[x][y] != open:
				add(healLine, x, y)
				if x < y && w.lines[y][x] != open {
					add(healBoth, x, y)
				}
			default:
				add(cutLine, x, y)
				add(slowLine, x, y)
				if x < y && w.lines[y][x] == open {
					add(cutBoth, x, y)
				}
			}
		}
	}
	switch {
	case w.stall:
		add(freeData, 0, 0)
	default:
		add(stallData, 0, 0)
	}
	switch {
	case w.arbiter != ByWitness:
	case w.run == 0:
		add(bringWitness, 0, 0)
	default:
		add(failWitness, 0, 0)
	}
	return list
}

// calmChoices are those of a world at rest that differ in what follows. That a
// message put aside never arrives follows from its not arriving yet, and a slow
// line does what late messages do on a line that is cut.
func (w *world) calmChoices(b budget, list []choice) []choice {
	list = w.choices(b, list)
	return slices.DeleteFunc(list, func(c choice) bool { return c.do == vanish || c.do == slowLine })
}

// faultsAt are those that can befall the event that is due. A message that is
// lost is one that is late for ever.
func (w *world) faultsAt(b budget, list []choice) []choice {
	w.nextChoices(func(d deed, x, y int) {
		c := choice{d, uint8(x), uint8(y)}
		if left := b; d != loseNext && left.take(c) {
			list = append(list, c)
		}
	})
	return list
}

func (w *world) nextChoices(add func(deed, int, int)) {
	e := w.queue[0]
	if e.network() {
		add(loseNext, 0, 0)
		if len(w.aside) < maxAside {
			add(delayNext, 0, 0)
			add(doubleNext, 0, 0)
		}
	} else if e.kind == evPromoted || e.kind == evDemoted || e.kind == evSaw || e.kind == evDown {
		if len(w.aside) < maxAside {
			add(delayNext, 0, 0)
		}
	}
	if i := int(e.at); i != third && e.kind < evData && w.acts(i) && (e.boot == 0 || e.boot == w.nodes[i].boot) {
		c := *w
		c.trace = nil
		actions := c.input(e)
		for k := 1; k < len(actions); k++ {
			switch actions[k-1].Do {
			case DoStore, DoChange, DoBeat, DoPromote, DoDemote, DoExpel:
				add(crashNext, k, 0)
				add(powerNext, k, 0)
			}
		}
	}
}

func (w *world) nodeChoices(i int, b budget, add func(deed, int, int)) {
	n := &w.nodes[i]
	switch {
	case !n.up:
		add(restart, i, 0)
		return
	case n.frozen:
		add(thaw, i, 0)
		add(crash, i, 0)
		return
	}
	add(crash, i, 0)
	add(power, i, 0)
	add(freeze, i, 0)
	add(isolate, i, 0)
	if n.engine.view != parted {
		add(breakSession, i, 0)
	}
	if n.engine.primary {
		k := int(4 - min(4, b.writes))
		add(write, i, k)
		add(writeFlushed, i, k)
	}
	if !n.engine.failed {
		add(failDisk, i, 0)
	}
	switch {
	case n.durable.Wanted == WantStop:
		add(opStart, i, 0)
	case n.m.role == serving:
		add(opStop, i, 0)
		add(opSwitch, i, 0)
		add(opStopAll, i, 0)
	default:
		add(opStop, i, 0)
	}
}

// choose does what was chosen.
func (w *world) choose(c choice) {
	if c.do != goOn {
		w.say("== %v", c)
	}
	a, b := int(c.a), int(c.b)
	switch c.do {
	case goOn:
		w.step()
		return
	case loseNext, delayNext, doubleNext, crashNext, powerNext:
		w.chooseNext(c)
	case arrive:
		e := w.aside[a]
		w.aside = append(w.aside[:a:a], w.aside[a+1:]...)
		w.happen(e, -1)
	case vanish:
		w.aside = append(w.aside[:a:a], w.aside[a+1:]...)
	case crash, power:
		w.crash(a, c.do == power)
	case restart:
		w.start(a)
	case freeze, thaw:
		w.nodes[a].frozen = c.do == freeze
		w.unbuffer(a)
	case cutLine:
		w.lines[a][b] = cut
	case cutBoth:
		w.lines[a][b], w.lines[b][a] = cut, cut
	case slowLine:
		w.lines[a][b] = slow
	case healLine:
		w.lines[a][b] = open
	case healBoth:
		w.lines[a][b], w.lines[b][a] = open, open
	case isolate:
		w.isolate(a)
	case breakSession:
		w.lose(a)
	case stallData:
		w.stall = true
	case freeData:
		w.stall = false
		w.queue, w.stalled = append(w.queue, w.stalled...), nil
	case failDisk:
		w.failDisk(a)
	case failWitness:
		w.run = 0
	case bringWitness:
		w.startWitness()
	case write, writeFlushed:
		w.nodes[a].engine.waiting |= 1 << b
		w.wantFlush = w.wantFlush || c.do == writeFlushed
	case opStop, opStopAll, opStart, opSwitch:
		w.truth.stopped = c.do == opStopAll || w.truth.stopped
		w.truth.parting, w.truth.led = w.parting(c), w.nodes[1-a].m.State() == StatePrim
		w.command(a, map[deed]Verb{opStop: CommandStop, opStopAll: CommandStopAll, opStart: CommandStart, opSwitch: CommandSwitch}[c.do])
	}
	w.after()
	w.check()
}

// parting is the process that is to serve on when the other node of a pair is
// stopped, and nothing is wrong: 0 when something is.
func (w *world) parting(c choice) uint64 {
	i := int(c.a)
	a, b := w.nodes[i].m.State(), w.nodes[1-i].m.State()
	pair := a == StatePrim && b == StateSecond || a == StateSecond && b == StatePrim
	if c.do != opStop || w.lines != [3][3]lineState{} || w.stall || len(w.aside) > 0 || !w.acts(i) || !w.acts(1-i) || !pair {
		return 0
	}
	return w.nodes[1-i].boot
}

func (w *world) chooseNext(c choice) {
	e := w.queue[0]
	w.queue = w.queue[1:len(w.queue):len(w.queue)]
	switch c.do {
	case loseNext:
		w.say("lost: %v", e)
	case delayNext:
		w.aside = append(w.aside, e)
	case doubleNext:
		w.aside = append(w.aside, e)
		w.happen(e, -1)
	case crashNext, powerNext:
		w.happen(e, int(c.a))
		if c.do == powerNext {
			w.crash(int(e.at), true)
		}
	}
}

// unbuffer lets arrive what came while a node was frozen.
func (w *world) unbuffer(i int) {
	w.queue, w.nodes[i].buffer = append(w.queue, w.nodes[i].buffer...), nil
}

// isolate takes a node off the network.
func (w *world) isolate(i int) {
	for x := range places {
		if x != i {
			w.lines[i][x], w.lines[x][i] = cut, cut
		}
	}
}

// failDisk is rule 8: that copy is failed, durably.
func (w *world) failDisk(i int) {
	e := &w.nodes[i].engine
	e.failed = true
	switch {
	case e.primary && (e.base != 0 || e.view == copying || e.view == source):
		e.dead = true // the peer lacks something
		w.lose(i)
	case e.primary && e.view == mirroring:
		e.asked = true
	default:
		w.lose(i)
	}
}
