// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/internal/block/blocktest"
)

// play carries out one command of a scenario.
func (s *scenario) play(words []string) {
	arg := func(i int) string {
		if i < len(words) {
			return words[i]
		}
		return ""
	}
	if s.playClock(words) {
		return
	}
	n := s.node(arg(1))
	switch words[0] {
	case "write", "fua", "read", "trim", "zero", "flush":
		s.ask(words)
	case "deliver":
		s.deliver(n)
	case "do":
		s.do(n, s.matching(arg(2)))
	case "until":
		s.until(n, arg(2))
	case "half":
		s.halfOpen(n)
	case "crash":
		n.tasks = nil
		s.kill(n, false)
	case "powercut":
		s.powercut(n, arg(2))
	case "start":
		s.start(n)
	case "right":
		n.engine.SetRight(s.now, map[string]Right{"none": RightNone, "pair": RightPair, "alone": RightAlone}[arg(2)])
		n.collect()
	case "prim", "primforce", "demote", "verify", "resync", "giveup":
		s.operatorSays(n, words)
	case "marks":
		first, count := s.sectors(arg(2))
		marked := 0
		for k := first; k < first+count; k += block.Size / sector {
			if n.engine.dirty.Any(k*sector/block.Size, 1) {
				marked++
			}
		}
		s.tell("%s marks %d of %d", n.name, marked, count*sector/block.Size)
	default:
		s.breaks(n, words)
	}
}

// playClock carries out commands that are about no node.
func (s *scenario) playClock(words []string) bool {
	switch words[0] {
	case "run":
		s.run()
	case "settle":
		s.settle()
	case "cut":
		s.cut()
	case "connect":
		s.connect()
	case "away", "back":
		s.noAnswer = words[0] == "away"
	case "wait":
		d, err := time.ParseDuration(words[1])
		s.must(err)
		s.wait(d, s.settle)
	case "apart":
		for i, n := range s.nodes {
			s.apart[i] = n.data.Snapshot()
		}
	case "short": // has been looked at before the first command
	case "status":
		s.status()
	case "disks":
		for _, word := range words[1:] {
			first, count := s.sectors(word)
			for k := first; k < first+count; k += block.Size / sector {
				b := k * sector / block.Size
				s.tell("block %d: alpha v=%d, beta v=%d", b, s.a.shows(b), s.b.shows(b))
			}
		}
	case "unsynced":
		s.tell("not durable: alpha %d sectors, beta %d", s.a.data.Unsynced(), s.b.data.Unsynced())
	case "held":
		for _, r := range s.asked {
			if !r.done && s.client.open[r] {
				s.tell("%s owes %s", r.node.name, r.name)
			}
		}
	default:
		return false
	}
	return true
}

// shows is what a disk holds in a block; where its sectors differ, 9999.
func (n *simNode) shows(first int64) uint64 {
	if v := n.holds(first); v != ^uint64(0) {
		return v
	}
	return 9999
}

func (s *scenario) matching(what string) func(*block.Task) bool {
	match := map[string]func(*block.Task) bool{
		"": nil, "data": onData, "meta": onMetadata,
		"flush":  func(t *block.Task) bool { return onData(t) && t.Op == block.Flush },
		"writes": func(t *block.Task) bool { return onData(t) && t.Op.Changes() },
		"reads":  func(t *block.Task) bool { return onData(t) && t.Op == block.Read },
	}
	f, ok := match[what]
	if !ok {
		s.fail("no tasks %q", what)
	}
	return f
}

// until lets everything go on, step by step, until a node has come so far.
func (s *scenario) until(n *simNode, what string) {
	come := map[string]func() bool{
		"greeting":  func() bool { return n.engine.session.state == Greeting && !n.engine.session.greeted },
		"comparing": func() bool { return n.engine.session.state == Comparing },
		"resyncing": func() bool { return n.engine.session.state == Resyncing },
		"mirroring": func() bool { return n.engine.session.state == Mirroring },
		"copying":   func() bool { return n.engine.session.state == Resyncing && n.has(onData) },
		"cleared":   func() bool { return n.engine.session.state == Resyncing && n.engine.resync.progress.Done > 0 },
		"last":      func() bool { return n.engine.session.state == Resyncing && n.engine.dirty.Count() == 1 },
		"finishing": func() bool {
			return n.engine.resync.ending && !n.engine.rounds.active && n.engine.header.Base.IsZero() && !n.engine.meta.busy
		},
	}[what]
	if come == nil {
		s.fail("until what? %q", what)
	}
	for range 10_000 {
		for _, step := range [...]func(){
			func() { s.do(s.a, nil) }, func() { s.do(s.b, onMetadata) }, func() { s.do(s.b, onData) },
			func() { s.deliver(s.a) }, func() { s.deliver(s.b) },
		} {
			if come() {
				return
			}
			step()
		}
		if !s.noAnswer {
			s.arbitrate(s.a)
			s.arbitrate(s.b)
		}
	}
	s.fail("%s is never %s", n.name, what)
}

// powercut ends a machine; of what was not durable all is kept, or nothing.
func (s *scenario) powercut(n *simNode, keep string) {
	n.tasks = nil
	for _, d := range [...]*blocktest.CrashDisk{n.data, n.meta} {
		switch keep {
		case "keep=none":
			d.PowerCut(s.rng, 1)
			d.Reopen()
		case "keep=all":
			s.must(d.Sync())
		default:
			s.fail("powercut %s keep=none or keep=all?", n.name)
		}
	}
	s.kill(n, true)
}

// start starts a node as its process would: or says why that will not.
func (s *scenario) start(n *simNode) {
	if _, err := bitmap.Load(n.meta, n.meta.Size()); err != nil {
		s.tell("%s does not start: %v", n.name, err)
		return
	}
	n.boot()
	e := n.engine
	s.tell("%s starts: %s, %d dirty", n.name, e.contentState(), e.dirty.Count())
}

func (s *scenario) operatorSays(n *simNode, words []string) {
	refused := func(err error) {
		if err != nil {
			s.tell("%s refuses %s: %v", n.name, words[0], err)
		}
	}
	switch words[0] {
	case "prim":
		if err := n.engine.Promotable(); err != nil {
			refused(err)
		} else if !s.prim(n) {
			s.tell("%s refuses prim: the record", n.name)
		}
	case "primforce":
		s.must(n.data.Sync())
		s.model.reset(n.data.Snapshot())
		err := n.engine.Promote(s.now, RightAlone, "operator", func() {})
		if refused(err); err == nil {
			s.record = record{s.record.epoch + 1, n.id, true}
			n.whole, n.kept = true, true
			s.holders()
		}
	case "demote":
		n.engine.Demote(s.now, block.ShuttingDown, func() {})
	case "verify":
		refused(n.engine.Verify(s.now, slices.Contains(words, "repair")))
		n.collect()
		s.settle()
		s.tell("verify: %s", n.engine.Status().Verified)
	case "resync":
		refused(n.engine.Resync(s.now, false))
	case "giveup":
		c := n.engine.Changes()
		s.tell("%s would lose %d blocks", n.name, c.Blocks)
		s.apart = [2][]byte{}
		s.model.reset(n.peer().data.Snapshot())
		refused(n.engine.GiveUp(s.now, c, func() {}))
	}
	s.collect()
}

// breaks are the commands that break something, or mend it.
func (s *scenario) breaks(n *simNode, words []string) {
	disks := [...]*blocktest.CrashDisk{n.data, n.meta}
	switch words[0] {
	case "fail":
		f := blocktest.Fault{Err: errMedium}
		ops := map[string]block.Op{"write": block.Write, "flush": block.Flush, "read": block.Read}
		f.Match = blocktest.On(ops[words[3]])
		switch {
		case slices.Contains(words, "once"):
			f.Times = 1
		case slices.Contains(words, "full"):
			f.Err = block.NoSpace
		}
		disks[slices.Index([]string{"data", "meta"}, words[2])].Inject(f)
	case "hang":
		n.hung, n.stuck = [2]bool{!slices.Contains(words, "meta"), !slices.Contains(words, "data")}, s.now
	case "revive":
		n.hung = [2]bool{}
	case "replace":
		s.client.version = 1000 // what happens to be on it
		n.replace()
	case "snapshot":
		s.saved[n.id] = [2][]byte{n.data.Durable(), n.meta.Durable()}
	case "rollback":
		n.data.Restore(s.saved[n.id][0])
		n.meta.Restore(s.saved[n.id][1])
	case "rot":
		b := s.number(words[2])
		s.rotten[b] = true
		n.data.FlipBit(b*block.Size+5, 3)
	case "sound":
		clear(s.rotten)
	case "tear":
		for _, t := range n.tasks {
			if onMetadata(t) && t.Op == block.Write {
				s.must(n.meta.WriteAt(t.Data[:40], t.Offset))
			}
		}
		s.must(n.meta.Sync())
	case "damage":
		s.damage(n, words[2])
	case "mix":
		s.meets(n, words[2])
	case "haunt":
		s.haunt()
	default:
		s.fail("unknown command %q", strings.Join(words, " "))
	}
}

// damage spoils a stored part of the metadata, which its checksum notices.
func (s *scenario) damage(n *simNode, what string) {
	h := n.stored()[0]
	spoil := func(offset int64) { s.must(n.meta.WriteAt(bytes.Repeat([]byte{0xa5}, 512), offset+64)) }
	switch what {
	case "header":
		spoil(bitmap.HeaderOffset(h.Sequence))
	case "headers":
		spoil(bitmap.HeaderOffset(0))
		spoil(bitmap.HeaderOffset(1))
	case "page":
		spoil(h.Layout.PageOffset(0))
	default:
		s.fail("damage what? %q", what)
	}
	s.must(n.meta.Sync())
}

// meets lets a peer say something else of itself when it meets n.
func (s *scenario) meets(n *simNode, what string) {
	h := n.peer().engine.hello()
	switch what {
	case "newer":
		h.Version, h.MinVersion = ProtocolVersion+1, ProtocolVersion+1
	case "compatible":
		h.Version = ProtocolVersion + 1
		h.Features = append(h.Features, "of tomorrow")
	case "twin":
		h.Node = n.name
	case "stranger":
		h.Node = "gamma"
	case "smaller":
		h.Size -= block.Size
	case "swapped":
		h.VolumeID[0] ^= 1
		s.tell("%s concludes %s", n.name, Decide(n.engine.hello(), h).Action)
		return
	}
	if err := n.engine.acquaint(h); err != nil {
		s.tell("%s refuses: %v", n.name, err)
		return
	}
	s.tell("%s accepts", n.name)
}

// status says how things stand.
func (s *scenario) status() {
	for _, n := range s.nodes {
		if n.engine == nil {
			s.tell("%s is down", n.name)
			continue
		}
		e := n.engine.Status()
		role := "secondary"
		if e.Primary {
			role = "primary, right " + e.Right.String()
		}
		s.tell("%s: %s, %s, disk %s, %d dirty", n.name, role, e.Session, e.State, e.DirtyBlocks)
	}
	same := "different"
	if a, b := s.a.header().Generation, s.b.header().Generation; a == b {
		same = "equal"
	}
	alone := "pair"
	if s.record.alone {
		alone = "alone"
	}
	s.tell("generations %s; record: %s, %s", same, s.nodes[s.record.holder].name, alone)
}

// readable reports whether a node's metadata can be loaded.
func (n *simNode) readable() bool {
	_, err := bitmap.Load(n.meta, n.meta.Size())
	return err == nil
}
