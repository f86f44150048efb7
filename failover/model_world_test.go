// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"fmt"
	"slices"
	"time"
)

// The world of the model: two machines, the seat of the witness, an abstract
// data path between the nodes, and what is under way on the wires. It is a value
// but for its queues: clone copies them. Nothing in it is random; whoever drives
// it chooses. Time goes in whole heartbeats: a lease lasts three of them, and a
// margin, however short, is the fourth.
//
// The world alone, left to itself, is perfect: what is sent arrives at once, in
// order. Every fault is a choice of the driver's.

const (
	beatEvery = 10 * time.Millisecond
	leaseLast = 3 * beatEvery
)

// The three places.
const (
	alpha = iota
	beta
	third // the witness
)

var places = [...]string{"alpha", "beta", "witness"}

type world struct {
	kept    Record        // a copy of the record, to be put back
	now     time.Duration // the true time; every place has a clock of its own
	nodes   [2]node
	seat    Seat
	run     uint64 // of the witness's process; 0: it is down
	lines   [3][3]lineState
	queue   []event // due now, in this order
	aside   []event // put aside: late, or doubled
	stalled []event // of the data path, while that stands still
	stall   bool
	session session
	truth   truth

	boots, runs uint64
	generations uint8
	quietTicks  uint8 // how long a silent session lasts
	lag         uint8 // how long a connection has to be whole before a session begins
	linkedFor   uint8 // how long it has been
	wantFlush   bool  // a client flushes as soon as its writes are acknowledged
	arbiter     Arbiter
	broken      string // the first rule that was broken
	trace       func(format string, args ...any)
	kinds       *kinds // of transitions, shared by all that come from one world
}

// lineState is one direction of a link.
type lineState uint8

const (
	open    lineState = iota
	cut               // what is sent is lost
	slow              // what is sent is put aside
	doubled           // what is sent arrives, and a copy is put aside
)

type node struct {
	up, frozen bool
	m          Machine
	boot       uint64
	durable    NodeState
	clock      time.Duration // the node's clock, less the true time
	saw        Data          // what the machine was last told
	engine     engine
	since      time.Duration // when its volumes might connect, the last time
	fails      bool          // the application does not start here
	ups        int           // how often the application was brought up
	shown      bool
	buffer     []event // what arrives while it is frozen
}

// kind is a kind of event.
type kind uint8

const (
	evBeat     kind = iota + 1
	evAsk           // a query or a request arrives at the witness
	evAnswer        // its answer arrives
	evPromoted      // what the shell reports back
	evDemoted
	evUp
	evDown
	evPing
	evFence
	evSaw
	evTick
	evData  // the next step of the data path
	evQuiet // the data path looks for silence
	evApply // a write arrives at the peer
	evAck   // the peer has it
)

func (k kind) String() string {
	return [...]string{"", "beat", "ask", "answer", "promoted", "demoted", "up", "down", "ping", "fence", "saw", "tick", "data", "silence", "apply", "ack"}[k]
}

// event is something that happens at a place.
type event struct {
	kind    kind
	at      uint8
	boot    uint64 // of the process that it is for; 0: any
	nonce   uint64
	beat    *Beat
	query   *Query
	request *Request
	answer  *Answer
	failed  bool
	session uint8
	write   uint8
}

// network reports whether the event is a message between places, which can be
// lost, late or doubled. The data path's connection does none of it.
func (e *event) network() bool { return e.kind == evBeat || e.kind == evAsk || e.kind == evAnswer }

func (e event) String() string {
	s := fmt.Sprintf("%v at %s", e.kind, places[e.at])
	switch {
	case e.beat != nil:
		s += " " + beatLine(e.beat)
	case e.request != nil:
		s += fmt.Sprintf(" from %s: %d -> %d %s %v", e.request.From, e.request.Replaces, e.request.epoch(), e.request.Holder, e.request.Mode)
		if e.request.Claim != 0 {
			s += fmt.Sprintf(" by promise %d", e.request.Claim)
		}
	case e.query != nil:
		s += fmt.Sprintf(" from %s: query, serving %t", e.query.From, e.query.Serving)
	case e.answer != nil:
		s += fmt.Sprintf(": %v, granted %t, renewed %t, void %t %s", e.answer.Record.View(), e.answer.Granted, e.answer.Renewed, e.answer.Void, e.answer.Reason)
	case e.kind == evApply || e.kind == evAck:
		s += fmt.Sprintf(" w%d", e.write)
	}
	return s
}

func beatLine(b *Beat) string {
	s := fmt.Sprintf("(%d %s %v, known %d, in step %d", b.View.Epoch, b.View.Holder, b.View.Mode, b.Known, b.InStep)
	for _, f := range []struct {
		name string
		is   bool
	}{{"serving", b.Serving}, {"wants", b.Wants}, {"witness", b.Witness}, {"whole", b.Whole}, {"mirrored", b.Mirrored}, {"kept", b.Kept}, {"offer", b.Offer}} {
		if f.is {
			s += ", " + f.name
		}
	}
	for _, f := range []struct {
		name string
		n    uint64
	}{{"follows", b.Follows}, {"term", b.Term}, {"teach", b.Teach}, {"promise", b.Promise}, {"held", b.Held}, {"disowned", b.Disowned}} {
		if f.n != 0 {
			s += fmt.Sprintf(", %s %d", f.name, f.n)
		}
	}
	return s + ")"
}

// clone copies what is shared.
func (w *world) clone() *world {
	c := new(world)
	w.cloneTo(c)
	return c
}

// cloneTo is clone into a world whose lists nobody else has.
func (w *world) cloneTo(c *world) {
	queue, aside, stalled, buffers := c.queue, c.aside, c.stalled, [2][]event{c.nodes[0].buffer, c.nodes[1].buffer}
	*c = *w
	c.queue, c.aside, c.stalled = append(queue[:0], w.queue...), append(aside[:0], w.aside...), append(stalled[:0], w.stalled...)
	for i := range c.nodes {
		c.nodes[i].buffer = append(buffers[i][:0], w.nodes[i].buffer...)
	}
}

// forget drops late messages that can do nothing any more, whenever they arrive:
// to a process that is no more; an answer to a question that has been asked anew;
// and such a question, when what it says it has seen is too old for the witness to
// take it for a sign of life or a request that is still meant.
func (w *world) forget() {
	w.aside = slices.DeleteFunc(w.aside, func(e event) bool {
		switch {
		case e.at != third:
			m := &w.nodes[e.at].m
			return e.boot != 0 && e.boot != w.nodes[e.at].boot || e.kind == evAnswer && !(m.ask.on && m.ask.nonce == e.nonce)
		case e.request != nil:
			return !w.awaits(&e, e.request.From) && !e.request.Seen.recent(w.stamp(), leaseLast)
		}
		return !w.awaits(&e, e.query.From) && !e.query.Seen.recent(w.stamp(), leaseLast) && w.seat.inOrder() && !w.seat.Record.lacks(e.query.Knows)
	})
}

// awaits reports whether a node waits for the answer to this question.
func (w *world) awaits(e *event, from string) bool {
	n := &w.nodes[place(from)]
	return n.boot == e.boot && n.m.ask.on && n.m.ask.nonce == e.nonce
}

// newWorld has two nodes that are installed and have not started.
func newWorld(arbiter Arbiter) *world {
	w := &world{now: time.Hour, quietTicks: 2, arbiter: arbiter}
	for i := range w.nodes {
		n := &w.nodes[i]
		n.clock = time.Duration(i+1) * 3e5 * time.Hour // clocks that are years apart
		n.engine.state = blank
	}
	if arbiter == ByWitness {
		w.startWitness()
	}
	return w
}

func (w *world) settings(i int) Settings {
	return Settings{
		Service: "db", Node: places[i], Peer: places[1-i],
		Heartbeat: beatEvery, Timeout: leaseLast, Arbiter: w.arbiter,
	}
}

func (w *world) stamp() Stamp { return Stamp{Run: w.run, At: w.now + 7*time.Hour} }

func (w *world) startWitness() {
	w.runs++
	w.run = w.runs
	w.seat = NewSeat(w.seat.Record, w.stamp().At)
}

func (w *world) start(i int) {
	n := &w.nodes[i]
	w.boots++
	w.linkedFor = 0
	n.up, n.frozen, n.boot, n.saw, n.since = true, false, w.boots, Data{}, w.now
	n.m = NewMachine(w.settings(i), n.boot, w.local(i), n.durable)
	w.later(event{kind: evSaw, at: uint8(i), boot: n.boot})
}

// crash ends a node's process; power also takes what its disk had not flushed.
func (w *world) crash(i int, power bool) {
	n := &w.nodes[i]
	w.truth.parting = 0
	n.up, n.frozen, n.boot, n.m, n.buffer = false, false, 0, Machine{}, nil
	n.engine.crash(power, &w.truth.dropped[i])
	w.drop(func(e *event) bool { return int(e.at) == i && !e.network() && e.kind != evData && e.kind != evQuiet })
}

func (w *world) drop(which func(*event) bool) {
	gone := func(e event) bool { return which(&e) }
	w.queue, w.stalled = slices.DeleteFunc(w.queue, gone), slices.DeleteFunc(w.stalled, gone)
}

func (w *world) local(i int) time.Duration { return w.now + w.nodes[i].clock }

func (w *world) later(e event) { w.queue = append(w.queue, e) }

// send puts a message on a line.
func (w *world) send(from, to int, e event) {
	e.at = uint8(to)
	switch w.lines[from][to] {
	case open:
		w.later(e)
	case doubled:
		w.later(e)
		w.aside = append(w.aside, e)
	case slow:
		if len(w.aside) >= maxAside+2 && w.aside[0].network() { // the newest, and a few
			w.aside = w.aside[1:len(w.aside):len(w.aside)]
		}
		w.aside = append(w.aside, e)
	}
}

// runs reports whether something can happen at a node.
func (w *world) acts(i int) bool { return w.nodes[i].up && !w.nodes[i].frozen }

// step lets the next thing happen: what is due, or else time.
func (w *world) step() {
	if len(w.queue) == 0 {
		w.tick()
		return
	}
	e := w.queue[0]
	w.queue = slices.Delete(w.queue, 0, 1)
	w.happen(e, -1)
}

func (w *world) tick() {
	w.now += beatEvery
	w.say("tick")
	for i := range w.nodes {
		if w.acts(i) {
			w.later(event{kind: evTick, at: uint8(i), boot: w.nodes[i].boot})
		}
	}
	w.later(event{kind: evQuiet})
	w.check()
}

// settle lets everything happen that is due.
func (w *world) settle() {
	for range 500 {
		if len(w.queue) == 0 {
			return
		}
		w.step()
	}
	w.violate("REST: the world does not come to rest: %v ...", w.queue[:min(6, len(w.queue))])
	w.queue = nil
}

// ticks lets time pass, and everything in it happen.
func (w *world) ticks(n int) {
	for range n {
		w.settle()
		w.step()
	}
	w.settle()
}

// happen lets an event happen. With crash at 0 or above, the node dies after so
// many of the actions that follow from it.
func (w *world) happen(e event, crash int) {
	w.say("%v", e)
	i := int(e.at)
	switch {
	case i == third:
		w.atWitness(e)
	case e.kind == evData:
		w.dataStep()
	case e.kind == evQuiet:
		w.dataTick()
	case !w.nodes[i].up || e.boot != 0 && e.boot != w.nodes[i].boot:
	case w.nodes[i].frozen:
		w.nodes[i].hold(e)
	case w.stall && (e.kind == evApply || e.kind == evAck):
		w.stalled = append(w.stalled, e)
	case e.kind == evApply, e.kind == evAck:
		w.dataMessage(e)
	default:
		var was standing
		if w.kinds != nil {
			was = w.nodes[i].m.standing()
		}
		actions := w.input(e)
		w.note(i, was, e.given(), actions)
		w.did(i, actions, crash)
	}
	w.after()
	w.check()
}

// hold keeps what arrives while a node is frozen: of messages the newest two of
// a kind, which is what a wire's buffer makes a difference by.
func (n *node) hold(e event) {
	same := func(other event) bool { return e.network() && other.kind == e.kind }
	if k := slices.IndexFunc(n.buffer, same); k >= 0 && slices.ContainsFunc(n.buffer[k+1:], same) {
		n.buffer = slices.Delete(slices.Clone(n.buffer), k, k+1)
	}
	n.buffer = append(n.buffer, e)
}

// input gives an event to a machine.
func (w *world) input(e event) []Action {
	i := int(e.at)
	n := &w.nodes[i]
	now := w.local(i)
	var err error
	if e.failed {
		err = errModel
	}
	switch e.kind {
	case evBeat:
		return n.m.Heard(now, *e.beat)
	case evAnswer:
		return n.m.Answered(now, e.nonce, *e.answer)
	case evPromoted:
		return n.m.Promoted(now, err)
	case evDemoted:
		return n.m.Demoted(now)
	case evUp:
		return n.m.Up(now, err)
	case evDown:
		return n.m.Down(now, nil)
	case evPing:
		return n.m.Pinged(now, e.nonce, w.ping(i))
	case evFence:
		return n.m.Fenced(now, err)
	case evTick:
		return n.m.Tick(now)
	case evSaw:
		d := w.data(i)
		n.saw = d
		return n.m.Saw(now, d)
	}
	panic(e.kind)
}

var errModel = fmt.Errorf("it does not work here")

// atWitness is what the seat does with a question: what it changes is durable
// before the answer leaves.
func (w *world) atWitness(e event) {
	if w.run == 0 {
		return
	}
	var a Answer
	var from int
	if e.query != nil {
		from = place(e.query.From)
		w.seat, a = w.seat.Query(w.stamp(), *e.query)
	} else {
		from = place(e.request.From)
		old := w.seat.Record
		w.seat, a = w.seat.Change(w.stamp(), *e.request)
		if w.seat.Record != old && w.seat.Record.Epoch <= old.Epoch {
			w.violate("EPOCH: the witness lowered epoch %d to %d", old.Epoch, w.seat.Record.Epoch)
		}
	}
	w.send(third, from, event{kind: evAnswer, boot: e.boot, nonce: e.nonce, answer: &a})
}

func place(name string) int { return slices.Index(places[:], name) }

// ping is what a router and the service's addresses say.
func (w *world) ping(i int) Ping {
	return Ping{Router: w.lines[i][third] == open && w.lines[third][i] == open, Peer: w.serves(1-i) && w.lines[i][1-i] == open && w.lines[1-i][i] == open}
}

func (w *world) say(format string, args ...any) {
	if w.trace != nil {
		w.trace(format, args...)
	}
}

func (w *world) violate(format string, args ...any) {
	if w.broken == "" {
		w.broken = fmt.Sprintf(format, args...)
		w.say("BROKEN: %s", w.broken)
	}
}

// command is an operator's word at a node.
func (w *world) command(i int, v Verb) error {
	n := &w.nodes[i]
	was := n.m.standing()
	actions, err := n.m.Command(w.local(i), Command{Verb: v, Who: "operator", Force: forceText(v)})
	w.note(i, was, string(v), actions)
	w.did(i, actions, -1)
	w.after()
	w.check()
	return err
}

func forceText(v Verb) string {
	if v == CommandForce {
		return "by the operator"
	}
	return ""
}
