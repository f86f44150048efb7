// SPDX-License-Identifier: Apache-2.0

package failover

import "slices"

// Where the exploration starts: not only from a pair at rest, but in the middle
// of what it would take many steps to begin. Each start is reached by the same
// choices as any other state.

type start struct {
	name  string
	world func() *world
}

var starts = []start{
	{"a pair", func() *world { return pairWorld(ByWitness) }},
	{"a pair with a write that is not flushed", func() *world { return begun(writeOf(alpha, 0)) }},
	{"a pair whose sessions are slow to return", func() *world {
		w := begun(writeOf(alpha, 0))
		w.lag = 3
		return w
	}},
	{"alone", func() *world {
		return begun(choice{do: crash, a: beta}, beats(8), writeOf(alpha, 0))
	}},
	{"alone, the other back", func() *world {
		return begun(choice{do: crash, a: beta}, beats(8), writeOf(alpha, 0), choice{do: restart, a: beta})
	}},
	{"the primary restarts after a power cut", func() *world {
		return begun(writeOf(alpha, 0), choice{do: power, a: alpha}, choice{do: restart, a: alpha})
	}},
	{"the secondary restarts after a power cut", func() *world {
		return begun(writeOf(alpha, 0), choice{do: power, a: beta}, choice{do: restart, a: beta})
	}},
	{"the primary off the network", func() *world {
		return begun(writeOf(alpha, 0), choice{do: isolate, a: alpha}, beats(3))
	}},
	{"the secondary has taken over, alone", func() *world {
		return begun(choice{do: crash, a: alpha}, beats(8), writeOf(beta, 0))
	}},
	{"a promise held, the witness down", func() *world {
		return begun(choice{do: failWitness}, beats(5), writeOf(alpha, 0))
	}},
	{"alone by a promise, the witness back", func() *world {
		return begun(choice{do: failWitness}, beats(5), choice{do: crash, a: beta}, beats(5), writeOf(alpha, 0), choice{do: bringWitness})
	}},
	{"a handover asked for, the request late", func() *world {
		w := begun(writeOf(alpha, 0))
		w.choose(choice{do: opSwitch, a: alpha})
		return w.delayed(func(e *event) bool { return e.request != nil })
	}},
	{"a handover granted, the answer late", func() *world {
		w := begun(writeOf(alpha, 0))
		w.choose(choice{do: opSwitch, a: alpha})
		return w.delayed(func(e *event) bool { return e.answer != nil && e.answer.Granted })
	}},
	{"a takeover asked for, the request late", func() *world {
		w := begun(writeOf(alpha, 0), choice{do: isolate, a: alpha})
		return w.delayed(func(e *event) bool { return e.request != nil && e.request.From == places[beta] })
	}},
	{"a takeover granted, the answer late", func() *world {
		w := begun(writeOf(alpha, 0), choice{do: isolate, a: alpha})
		return w.delayed(func(e *event) bool { return e.answer != nil && e.answer.Granted })
	}},
	{"a takeover granted, the answer late, and sessions slow to return", func() *world {
		w := begun(writeOf(alpha, 0), choice{do: isolate, a: alpha})
		w.lag = 4
		return w.delayed(func(e *event) bool { return e.answer != nil && e.answer.Granted })
	}},
	{"a handover asked for, the request late, and the primary restarted", func() *world {
		w := begun(writeOf(alpha, 0))
		w.choose(choice{do: opSwitch, a: alpha})
		w.delayed(func(e *event) bool { return e.request != nil })
		w.choose(choice{do: crash, a: alpha})
		w.choose(choice{do: restart, a: alpha})
		w.settle()
		return w
	}},
	{"pair asked for, the answer late", func() *world {
		w := begun(choice{do: crash, a: beta}, beats(8), choice{do: restart, a: beta})
		return w.delayed(func(e *event) bool { return e.answer != nil && e.answer.Granted })
	}},
	{"up to date again, and the data path stands still", func() *world {
		w := begun(choice{do: crash, a: beta}, beats(8), choice{do: restart, a: beta})
		w.reach(func() bool { return w.nodes[alpha].engine.view == mirroring })
		w.choose(choice{do: stallData})
		w.choose(writeOf(alpha, 0))
		w.ticks(3)
		return w
	}},
	{"alone granted late, nothing differs any more, and the data path stands still", func() *world {
		w := begun()
		w.lines[third][alpha] = slow
		w.choose(choice{breakSession, alpha, 0})
		w.reach(func() bool { return w.nodes[alpha].engine.view != mirroring })
		w.reach(func() bool { return w.nodes[alpha].engine.view == mirroring && w.nodes[beta].engine.view == mirroring })
		w.choose(choice{do: stallData})
		w.lines[third][alpha] = open
		w.choose(choice{do: arrive})
		w.choose(writeOf(alpha, 0))
		w.ticks(3)
		return w
	}},
	{"a handover by promise", func() *world {
		return begun(writeOf(alpha, 0), choice{do: failWitness}, beats(5), choice{do: opSwitch, a: alpha}, beats(2))
	}},
	{"the secondary stopped", func() *world {
		return begun(writeOf(alpha, 0), choice{do: opStop, a: beta}, beats(2))
	}},
	{"served from the other's disk", func() *world {
		return begun(writeOf(alpha, 0), choice{do: failDisk, a: alpha}, beats(3))
	}},
	{"the primary lost its power as it was stopped, the witness down", func() *world {
		w := begun(choice{do: failWitness}, beats(5), writeOf(alpha, 0))
		w.lag = 4
		w.choose(choice{do: opStop, a: alpha})
		w.choose(choice{do: power, a: alpha}) // before anything came of it
		w.choose(choice{do: restart, a: alpha})
		w.ticks(9)
		return w
	}},
	{"the holder of a promise lost its power, the data path stands still, the witness back", func() *world {
		return begun(writeOf(alpha, 0), choice{do: failWitness}, beats(5), choice{do: stallData}, choice{do: power, a: alpha},
			choice{do: restart, a: alpha}, beats(6), choice{do: bringWitness})
	}},
	{"the witness stopped, then the secondary", func() *world {
		return begun(writeOf(alpha, 0), choice{do: failWitness}, choice{do: opStop, a: beta}, beats(4))
	}},
	{"the primary dead, the other restored from an old copy", func() *world {
		w := begun()
		old := w.nodes[beta]
		w.choose(choice{do: crash, a: beta})
		w.ticks(8)
		w.choose(choice{do: restart, a: beta})
		w.ticks(8)
		w.choose(writeOf(alpha, 0))
		w.settle()
		w.choose(choice{do: crash, a: alpha})
		w.choose(choice{do: crash, a: beta})
		w.truth.restored = true
		w.nodes[beta].durable, w.nodes[beta].engine = old.durable, old.engine
		w.nodes[beta].engine.crash(false, &w.truth.dropped[beta])
		w.choose(choice{do: restart, a: beta})
		w.ticks(2)
		return w
	}},
	{"a handover asked for in an epoch that a late request for a takeover names too", func() *world {
		w := begun(writeOf(alpha, 0))
		w.quietTicks = 8
		w.lines[alpha][beta] = cut
		w.ticks(2)
		w.lines[beta][alpha] = cut
		w.delayed(func(e *event) bool { return e.request != nil && e.request.From == places[beta] })
		w.lines[beta][third] = slow
		w.choose(choice{do: opSwitch, a: alpha})
		w.settle()
		w.lines = [3][3]lineState{}
		w.lines[beta][third] = slow
		w.ticks(1)
		w.lines[beta][third] = open
		w.aside = slices.DeleteFunc(w.aside, func(e event) bool { return e.query != nil })
		return w
	}},
	{"the nodes do not hear each other, and the data path stands still", func() *world {
		return begun(writeOf(alpha, 0), choice{do: stallData}, choice{cutBoth, alpha, beta}, beats(4))
	}},
	{"a switch, the application slow to go down", func() *world {
		w := begun(writeOf(alpha, 0))
		w.choose(choice{do: opSwitch, a: alpha})
		return w.delayed(func(e *event) bool { return e.kind == evDown })
	}},
	{"a takeover, the volumes slow to serve", func() *world {
		w := begun(writeOf(alpha, 0), choice{do: isolate, a: alpha})
		return w.delayed(func(e *event) bool { return e.kind == evPromoted })
	}},
}

func beats(n uint8) choice { return choice{do: goOn, a: n} }

func writeOf(node, k uint8) choice { return choice{write, node, k} }

// begun is a pair after these choices, each with all that follows from it;
// goOn lets so many heartbeats pass.
func begun(list ...choice) *world {
	w := pairWorld(ByWitness)
	for _, c := range list {
		if c.do == goOn {
			w.ticks(int(c.a))
			continue
		}
		w.choose(c)
		w.settle()
	}
	if w.broken != "" {
		panic(w.broken)
	}
	return w
}

// delayed lets things happen until such a message is due, which is put aside.
func (w *world) delayed(which func(*event) bool) *world {
	w.reach(func() bool { return len(w.queue) > 0 && which(&w.queue[0]) })
	w.choose(choice{do: delayNext})
	w.settle()
	return w
}

// reach lets things happen until it has come to something.
func (w *world) reach(come func() bool) {
	for range 1000 {
		if come() {
			return
		}
		w.step()
	}
	panic(noStart("it does not come to that"))
}
