// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/internal/block/blocktest"
)

// A pair is two engines on disks with volatile caches, the link between them,
// a register that arbitrates as the witness does, and a client with a model of
// what it was told. Everything happens in one thread, in an order drawn from
// one seed: the same seed gives the same run.
type pair struct {
	t     tester
	seed  uint64
	rng   *rand.Rand
	now   time.Duration
	nodes [2]*simNode
	trace []string

	record   record
	wires    []*wire // of the session under way, or of old ones
	noAnswer bool    // the witness is away
	calm     bool    // the client asks for nothing

	flushBytes int64 // Config.FlushBytes
	short      int64 // bytes by which the volume is smaller than its disks
	strict     bool  // the fence is looked at in every answer

	model  *model
	client *client
	forced bool           // the only whole copy is gone: the operator takes the other
	rotten map[int64]bool // blocks changed behind the engines' backs
	checks int
}

// tester is whom a pair tells that it has failed: a test, or whoever expects it.
// Fatalf does not return.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
}

// broken is what a tester panics with who expects a failure: what broke.
type broken string

// record is the witness's: who may serve, and how.
type record struct {
	epoch  uint64
	holder int
	alone  bool
}

type simNode struct {
	pair        *pair
	id          int
	name        string
	engine      *Engine
	data        *blocktest.CrashDisk
	meta        *blocktest.CrashDisk
	tasks       []*block.Task
	rng         *rand.Rand
	inStep      uint64 // durable: the epoch in which it was told to be in step
	asks        []Ask
	incarnation uint64
	whole       bool          // its disk, with its cache, has every acknowledged write
	kept        bool          // it has not restarted since
	gives       bool          // has stopped serving, and hands the record to its peer
	slow        bool          // its disks take longer than everything else
	keeps       bool          // a failed disk stays in its place
	hung        [2]bool       // by target: its tasks are not carried out
	stuck       time.Duration // since when something is hung
	suspect     bool          // a sync has failed: only a power cut shows what is left
	old         uint64        // number of an earlier session
}

// wire carries the bytes of one connection in one direction.
type wire struct {
	from, to       *Link
	fromN, toN     *simNode
	fromInc, toInc uint64
	bytes          []byte
	until          time.Duration // nothing passes before
	dead           bool          // nothing passes any more
}

const (
	simSize   = 96 * block.Size
	simRegion = 64 << 10
	sector    = 512
	sectors   = simSize / sector
)

func newPair(t tester, seed uint64, with ...func(*pair)) *pair {
	p := &pair{t: t, seed: seed, rotten: make(map[int64]bool), rng: rand.New(rand.NewPCG(seed, 1))}
	if seed%5 == 0 { // hardly more than one request
		p.flushBytes = 24 * sector
	}
	for _, f := range with {
		f(p)
	}
	p.model = newModel(p)
	for i, name := range [...]string{"alpha", "beta"} {
		n := &simNode{pair: p, id: i, name: name, rng: rand.New(rand.NewPCG(seed, uint64(10+i)))}
		n.data = blocktest.NewCrashDisk(simSize)
		n.create(bitmap.Blank)
		p.nodes[i] = n
		n.boot()
	}
	p.record = record{epoch: 1, holder: 0, alone: true}
	p.must(p.nodes[0].engine.Promote(p.now, RightAlone, "", func() {}))
	p.client = &client{pair: p}
	return p
}

func (n *simNode) create(state bitmap.State) {
	h := bitmap.Header{
		Cluster: "sim", Volume: "v", Node: n.name, Peer: n.peerName(), DiskID: "disk-" + n.name,
		Size: simSize - n.pair.short, RegionSize: simRegion, IntentLimit: 3, Salt: n.pair.rng.Uint64() | 1, State: state,
	}
	l, err := h.Layout()
	n.pair.must(err)
	n.meta = blocktest.NewCrashDisk(l.Bytes())
	writes, err := bitmap.Format(h)
	n.pair.must(err)
	for w := range writes {
		n.pair.must(n.meta.WriteAt(w.Data, w.Offset))
	}
	n.pair.must(n.meta.Sync())
}

func (n *simNode) peerName() string { return [...]string{"beta", "alpha"}[n.id] }
func (n *simNode) peer() *simNode   { return n.pair.nodes[1-n.id] }

type rngReader struct{ rng *rand.Rand }

func (r rngReader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(r.rng.Uint32())
	}
	return len(p), nil
}

func (n *simNode) boot() {
	n.data.Heal()
	n.meta.Heal()
	md, err := bitmap.Load(n.meta, n.meta.Size())
	n.pair.must(err)
	if md.Header.State == bitmap.Failed && !n.keeps {
		n.replace()
		md, err = bitmap.Load(n.meta, n.meta.Size())
		n.pair.must(err)
	}
	if md.IntentsLost {
		n.pair.fail("intents of %s lost", n.name)
	}
	n.incarnation++
	n.tasks, n.asks = nil, nil
	n.engine = New(Config{
		Cluster: "sim", Volume: "v", Node: n.name, Peer: n.peerName(),
		PeerTimeout: time.Second, DiskTimeout: 2 * time.Second, FlushEvery: 300 * time.Millisecond, FlushBytes: n.pair.flushBytes, Compress: true, Punch: true,
		Incarnation: n.incarnation, Random: rngReader{n.rng}, Arbiter: n, Recall: recall,
		Observe: func(ev Event) { n.pair.log("%s %s: %s -> %s (%s)", n.name, ev.Kind, ev.Old, ev.New, ev.Reason) },
	}, md)
	n.engine.SetHolder(n.pair.record.epoch, n.pair.record.holder == n.id)
}

// recall is what a worker's own memory comes to: a hung task goes on in a copy.
func recall(t *block.Task) { t.Data, t.Extents = bytes.Clone(t.Data), nil }

// Ask is the Arbiter's question; the pair answers later.
func (n *simNode) Ask(a Ask) { n.asks = append(n.asks, a) }

func (n *simNode) collect() {
	n.tasks = append(n.tasks, n.engine.Tasks()...)
}

func (p *pair) log(format string, args ...any) {
	p.trace = append(p.trace, fmt.Sprintf("%8s ", p.now)+fmt.Sprintf(format, args...))
}

func (p *pair) fail(format string, args ...any) {
	p.t.Helper()
	from := max(0, len(p.trace)-80)
	if *simSeed != 0 {
		from = 0
	}
	p.t.Fatalf("seed %d: %s\n%s", p.seed, fmt.Sprintf(format, args...), strings.Join(p.trace[from:], "\n"))
}

func (p *pair) must(err error) {
	p.t.Helper()
	if err != nil {
		p.fail("%v", err)
	}
}

// connect joins the two engines by fresh links.
func (p *pair) connect() {
	a, b := p.nodes[0], p.nodes[1]
	if a.engine == nil || b.engine == nil {
		return
	}
	p.cut()
	p.log("connect")
	ad, ab := a.engine.Connect(p.now)
	bd, bb := b.engine.Connect(p.now)
	p.wires = nil
	for _, w := range [...]wire{{from: ad, to: bd, fromN: a, toN: b}, {from: bd, to: ad, fromN: b, toN: a},
		{from: ab, to: bb, fromN: a, toN: b}, {from: bb, to: ab, fromN: b, toN: a}} {
		w.fromInc, w.toInc = w.fromN.incarnation, w.toN.incarnation
		p.wires = append(p.wires, &w)
	}
	p.collect()
}

func (p *pair) collect() {
	for _, n := range p.nodes {
		if n.engine != nil {
			n.collect()
		}
	}
}

// cut ends the connection; each node hears of it by itself.
func (p *pair) cut() {
	for _, n := range p.nodes {
		if n.engine != nil {
			n.old = max(n.old, n.engine.session.id)
			n.engine.Disconnect(p.now, "link cut")
		}
	}
	p.wires = nil
	p.collect()
}

// carry moves some bytes along a wire.
func (p *pair) carry(w *wire) {
	if w.dead || p.now < w.until || w.fromN.engine == nil || w.toN.engine == nil || w.fromN.incarnation != w.fromInc || w.toN.incarnation != w.toInc {
		return
	}
	if out := w.from.Output(); len(out) > 0 && !w.from.closed {
		n := 0
		limit := 1 + p.rng.IntN(64<<10)
		for _, b := range out {
			b = b[:min(len(b), limit-n)]
			w.bytes = append(w.bytes, b...)
			if n += len(b); n == limit {
				break
			}
		}
		w.from.Sent(n)
	}
	if len(w.bytes) > 0 && p.rng.IntN(3) > 0 && !w.to.closed {
		room := w.to.Room()
		n := copy(room, w.bytes[:1+p.rng.IntN(len(w.bytes))])
		if n == 0 {
			return // the node drains
		}
		w.bytes = w.bytes[n:]
		if err := w.to.Received(n); err != nil {
			p.log("%s ends the session: %v", w.toN.name, err)
		}
		w.toN.collect()
	}
}

// work carries out one disk task of a node.
func (p *pair) work(n *simNode) {
	if n.engine == nil || len(n.tasks) == 0 {
		return
	}
	i := p.rng.IntN(min(len(n.tasks), 8))
	t := n.tasks[i]
	if n.hung[t.Target] || n.slow && !p.calm && p.rng.IntN(12) > 0 {
		return
	}
	n.tasks = append(n.tasks[:i:i], n.tasks[i+1:]...)
	if t.Err = n.carryOut(t); t.Err != nil {
		p.log("%s: %s of disk %d at %d: %v", n.name, t.Op, t.Target, t.Offset, t.Err)
		n.suspect = n.suspect || t.Op == block.Flush
	}
	n.engine.Finished(p.now, t)
	n.collect()
}

func (n *simNode) carryOut(t *block.Task) error {
	d := n.data
	if t.Target == block.Metadata {
		d = n.meta
	}
	if t.Op == block.BlockStatus {
		t.Extents = append(t.Extents, block.Extent{Length: uint32(t.Length)})
	}
	return carryOut(d, t)
}

// arbitrate answers what a node asked, or begins to pair.
func (p *pair) arbitrate(n *simNode) {
	e := n.engine
	if e == nil || p.noAnswer {
		return
	}
	if n.gives {
		p.give(n)
		return
	}
	if len(n.asks) > 0 {
		a := n.asks[0]
		n.asks = n.asks[1:]
		if p.record.holder != n.id {
			p.log("%s refused: the record names the other", n.name)
			e.Demote(p.now, block.ShuttingDown, func() {})
			n.collect()
			return
		}
		p.record.epoch++
		p.record.alone = true
		switch a {
		case AskAlone:
			p.log("%s granted alone in epoch %d", n.name, p.record.epoch)
			e.SetRight(p.now, RightAlone)
		case AskPeer:
			p.record.holder = 1 - n.id
			p.log("record names %s in epoch %d", n.peer().name, p.record.epoch)
			e.RecordNamesPeer(p.now)
		}
		p.holders()
		n.collect()
		return
	}
	// back to pair: the peer durably learns the epoch, the holder gives up
	// alone, then asks.
	if e.Primary() && e.session.state == Mirroring && p.record.holder == n.id && p.record.alone &&
		e.right == RightAlone && n.peer().engine != nil && n.peer().engine.session.state == Mirroring && e.local == diskGood {
		n.peer().inStep = p.record.epoch + 1
		e.SetRight(p.now, RightNone)
		p.record.epoch++
		p.record.alone = false
		p.log("pair in epoch %d", p.record.epoch)
		e.SetRight(p.now, RightPair)
		n.collect()
	}
}

// serves reports whether a node is primary, or about to be.
func (n *simNode) serves() bool {
	return n.engine != nil && (n.engine.Primary() || n.engine.promoting.active())
}

// give ends a handover: the holder, which serves no longer, writes its peer into
// the record (rule 17), if that is still an equal.
func (p *pair) give(n *simNode) {
	n.gives = false
	o := n.peer()
	if p.record.holder != n.id || n.serves() || o.engine == nil || n.engine.session.state != Mirroring ||
		o.engine.session.state != Mirroring || o.engine.Promotable() != nil {
		return
	}
	p.record = record{p.record.epoch + 1, o.id, true}
	p.log("%s gives to %s in epoch %d", n.name, o.name, p.record.epoch)
	p.must(o.engine.Promote(p.now, RightAlone, "", func() {}))
	p.holders()
	p.collect()
}

func (p *pair) holders() {
	for _, n := range p.nodes {
		if n.engine != nil {
			n.engine.SetHolder(p.record.epoch, p.record.holder == n.id)
		}
	}
}

// prim is the operator's command on a node: refused where it would lose
// acknowledged writes.
func (p *pair) prim(n *simNode) bool {
	e := n.engine
	if e == nil || n.serves() || n.peer().serves() {
		return false
	}
	// Who restarted may lack what its peer, which did not, has taken; it has
	// acknowledged nothing alone if both are of one generation.
	o := n.peer().engine
	stale := !n.kept && o != nil && o.session.keptInStep && o.header.Generation == e.header.Generation && e.session.state != Mirroring
	holder := p.record.holder == n.id && !stale
	takeover := !p.record.alone && n.inStep == p.record.epoch && !stale
	// The holder is there, serves nothing, and both found that our blocks win:
	// it writes us into the record (rule 22).
	given := n.peer().engine != nil && e.session.state == Comparing && e.resync.source && n.peer().engine.session.state == Comparing
	if !holder && !takeover && !given || e.Promotable() != nil || e.header.State <= bitmap.Fresh {
		return false // a disk without data may begin a volume, and this one has begun
	}
	p.record = record{p.record.epoch + 1, n.id, true}
	p.log("prim %s in epoch %d", n.name, p.record.epoch)
	if err := e.Promote(p.now, RightAlone, "", func() {}); err != nil {
		p.fail("promote %s: %v", n.name, err)
	}
	p.holders()
	n.collect()
	return true
}

// kill ends a node's process; with power its caches go too.
func (p *pair) kill(n *simNode, power bool) {
	if n.engine == nil {
		return
	}
	p.log("kill %s power=%t", n.name, power)
	p.client.killed(n)
	n.engine = nil
	n.data.Heal()
	n.meta.Heal()
	for _, t := range n.tasks { // what was with the kernel may be done or not
		if t.Op != block.Read && t.Op != block.Flush && p.rng.IntN(2) == 0 {
			p.must(n.carryOut(t))
		}
	}
	n.tasks, n.asks, n.hung, n.gives = nil, nil, [2]bool{}, false
	n.incarnation++
	power = power || n.suspect
	n.suspect = false
	if power {
		n.data.PowerCut(p.rng, 0.5)
		n.data.Reopen()
		n.meta.PowerCut(p.rng, 0.5)
		n.meta.Reopen()
		p.cover()
	}
	p.model.died(n, power)
	p.wires = nil
	if o := n.peer(); o.engine != nil {
		o.engine.Disconnect(p.now, "peer gone")
		o.collect()
	}
}

// step lets one thing happen.
func (p *pair) step() {
	p.now += time.Duration(p.rng.IntN(300)) * time.Microsecond
	switch k := p.rng.IntN(1000); {
	case k < 450:
		if len(p.wires) > 0 {
			p.carry(p.wires[p.rng.IntN(len(p.wires))])
		}
	case k < 850:
		p.work(p.nodes[p.rng.IntN(2)])
	case k < 900:
		p.arbitrate(p.nodes[p.rng.IntN(2)])
	case k < 920:
		p.tick(p.nodes[p.rng.IntN(2)])
	case k < 923:
		p.now += time.Duration(p.rng.IntN(700)) * time.Millisecond
	case k == 923:
		p.cover()
	default:
		p.client.act()
	}
	p.wholeness()
}

// tick lets a node see the time, and how long its disks have been hung.
func (p *pair) tick(n *simNode) {
	if n.engine == nil {
		return
	}
	n.engine.Tick(p.now)
	stuck := time.Duration(0)
	if slices.ContainsFunc(n.tasks, func(t *block.Task) bool { return n.hung[t.Target] }) {
		stuck = p.now - n.stuck
	}
	n.engine.CheckDisk(p.now, stuck)
	n.collect()
}

// wholeness keeps account of who has every acknowledged write.
func (p *pair) wholeness() {
	for _, n := range p.nodes {
		e, o := n.engine, n.peer()
		switch {
		case e == nil:
		case e.local == diskFailed:
			had := n.whole
			n.whole, n.kept = false, false
			if e.Primary() && e.remote.ready {
				o.whole, o.kept = true, true
			}
			if had {
				p.model.reckon()
			}
		case e.Primary():
			both := e.session.state == Mirroring && o.engine != nil && o.engine.session.state == Mirroring
			n.whole, n.kept, p.forced = true, true, false
			o.whole = both || o.whole && e.right != RightAlone
			o.kept = both || o.kept && o.whole
		}
	}
}

// heal boots what is down, replaces disks that failed, connects, lets the
// operator choose, and waits until both disks are alike.
func (p *pair) heal() {
	p.noAnswer = false
	defer func() { p.calm = false }()
	for _, n := range p.nodes {
		if n.engine != nil && n.engine.local == diskGood {
			n.hung = [2]bool{}
		}
	}
	for i := 0; ; i++ {
		p.calm = i > 3000
		if i == 200_000 {
			p.fail("no service after healing: %s; %s", p.describe(0), p.describe(1))
		}
		p.mend(i)
		p.step()
		if i%500 == 499 && p.calm { // a fault that nobody has met yet
			for _, n := range p.nodes {
				n.data.Heal()
				n.meta.Heal()
			}
		}
		if p.quiet() {
			break
		}
	}
	p.compare()
	p.cover()
	for _, n := range p.nodes {
		p.empty(n)
	}
}

// mend does what people do when something is broken.
func (p *pair) mend(i int) {
	for _, n := range p.nodes {
		if n.engine != nil && n.engine.local == diskFailed && i%1000 == 999 {
			p.kill(n, p.rng.IntN(2) == 0)
		}
		if n.engine == nil {
			n.boot()
		}
	}
	a, b := p.nodes[0], p.nodes[1]
	if i%50 == 0 && (a.engine.session.state == Disconnected || b.engine.session.state == Disconnected) {
		p.connect()
	}
	if i%100 == 99 && !a.serves() && !b.serves() {
		k := p.rng.IntN(2)
		if p.forced {
			p.primforce()
		} else {
			_ = p.prim(p.nodes[k]) || p.prim(p.nodes[1-k])
		}
	}
}

func (p *pair) describe(i int) string {
	n := p.nodes[i]
	if n.engine == nil {
		return n.name + " down"
	}
	s := n.engine.Status()
	ops := ""
	for r := range n.pair.client.open {
		ops += fmt.Sprintf(" %s@%d+%d", r.Op, r.Offset/sector, r.Length/sector)
	}
	e := n.engine
	ops += fmt.Sprintf(" rounds=%+v window=%d/%d stalled=%d waiting=%d starved=%d held=%d meta=%v/%v follower tasks=%d syncing=%v flushes=%v copies=%v intents=%d", e.rounds, e.window.oldest, e.window.next, e.window.stalled.length, e.marks.waiting.length, e.marks.starved.length, e.held.length, e.meta.busy, e.meta.sweep, e.follower.tasks, e.follower.syncing, e.follower.flushes, e.follower.copies, e.marks.intents.Len())
	return ops + fmt.Sprintf("\n%s primary=%t right=%s session=%s (%s) state=%s dirty=%d frozen=%d inflight=%d tasks=%d local=%v inStep=%d record=%+v runs=%d asks=%v",
		n.name, s.Primary, s.Right, s.Session, s.Reason, s.State, s.DirtyBlocks, s.Frozen, s.InFlight, len(n.tasks), n.engine.local, n.inStep, p.record, len(n.engine.resync.runs), n.asks)
}

// quiet reports whether the pair mirrors and nothing is under way.
func (p *pair) quiet() bool {
	for _, n := range p.nodes {
		e := n.engine
		if e == nil || e.session.state != Mirroring || len(n.tasks) > 0 || e.ops.used > 0 || e.rounds.active || e.meta.busy || e.verify.active {
			return false
		}
	}
	for _, w := range p.wires {
		if len(w.bytes) > 0 || len(w.from.Output()) > 0 {
			return false
		}
	}
	return p.nodes[0].engine.Primary() || p.nodes[1].engine.Primary()
}

// compare asserts that both disks hold the same, and what the client was told.
func (p *pair) compare() {
	a, b := p.nodes[0].data.Snapshot(), p.nodes[1].data.Snapshot()
	for s := 0; s < sectors; s++ {
		x, y := a[s*sector:(s+1)*sector], b[s*sector:(s+1)*sector]
		if p.rotten[int64(s*sector/block.Size)] {
			continue
		}
		if !bytes.Equal(x, y) {
			p.fail("sector %d differs: alpha %d, beta %d", s, version(x), version(y))
		}
		p.model.observe(s, version(x), "disks after healing")
	}
}

func version(b []byte) uint64 {
	v := binary.BigEndian.Uint64(b)
	for i := 8; i < len(b); i += 8 {
		if binary.BigEndian.Uint64(b[i:]) != v {
			return ^uint64(0)
		}
	}
	return v
}
