// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/failover"
	"github.com/twinbd/twinbd/internal/config"
	"github.com/twinbd/twinbd/mirror"
)

// service is the shell around the machine that decides who serves (rule 21). One
// goroutine owns the machine: it gives it every input with the time, and carries
// out the actions in their order. Whatever takes time is done elsewhere, and its
// outcome comes back as an input.
type service struct {
	node    *Node
	cfg     *config.Service
	log     *slog.Logger
	volumes []*volume
	file    *failover.StateFile
	app     *app

	inputs  chan posted
	wake    chan struct{} // a volume has changed
	halting chan struct{} // closed: run is to end, and the machine with it
	halted  chan struct{} // closed when run has ended

	machine failover.Machine // owned by run
	last    time.Duration    // when run last turned

	shown atomic.Pointer[shown]
	right atomic.Uint32 // mirror.Right, as last granted
	lone  uint64        // words to the volumes on being alone: that they may be, or may no longer; owned by run
	held  atomic.Bool   // no volume may connect: the service is about to go alone, or stopped

	inherited atomic.Bool // what an earlier process has left may be taken over as it is; see cleanUp
	running   atomic.Bool // the process before this one left its application running

	parting atomic.Bool // likewise: a volume can go on only when all are alone

	asking context.CancelFunc // ends the exchange with the witness under way; owned by run
	sought failover.View      // what the record was last asked to become, under the epoch that is replaced; owned by run

	mu    sync.Mutex
	asked map[*volume]mirror.Ask // what the volumes wait for
	about about                  // what the peer last said of itself
	since time.Time              // of the state that is shown
}

// input is something that happened, as the machine takes it.
type input func(m *failover.Machine, now time.Duration) []failover.Action

// posted is an input on its way to run.
type posted struct {
	in    input
	taken chan<- struct{} // closed when what is shown contains it; may be nil
}

// shown is the machine as others may see it: a copy.
type shown struct {
	machine failover.Machine
	at      time.Duration
}

func newService(n *Node, cfg *config.Service) (*service, error) {
	file, damaged, err := failover.OpenState(n.dir, failover.StateOwner{Cluster: n.cfg.Cluster, Node: n.self.Name, Service: cfg.Name})
	if err != nil {
		return nil, err
	}
	s := &service{
		node: n, cfg: cfg, log: n.log.With("service", cfg.Name), file: file,
		inputs: make(chan posted, 64), wake: make(chan struct{}, 1),
		halting: make(chan struct{}), halted: make(chan struct{}),
		asked: make(map[*volume]mirror.Ask), since: time.Now(),
	}
	if damaged != nil {
		s.log.Warn("one copy of the state is damaged, the other is used", "error", damaged)
	}
	for i := range cfg.Volumes {
		v, err := openVolume(s, &cfg.Volumes[i], n.incarnation)
		if err != nil {
			return nil, errors.Join(err, s.close())
		}
		state := file.State()
		v.engine.SetHolder(state.Holder(n.self.Name))
		s.volumes = append(s.volumes, v)
	}
	if s.app, err = newApp(s); err != nil {
		return nil, errors.Join(err, s.close())
	}
	s.machine = failover.NewMachine(s.settings(), n.incarnation, n.clock(), file.State())
	s.publish(n.clock())
	return s, nil
}

// holdOff is for how long the preferred node has been up to date before the
// service returns there by itself, in timeouts.
const holdOff = 10

func (s *service) settings() failover.Settings {
	n := s.node
	set := failover.Settings{
		Service: s.cfg.Name, Node: n.self.Name, Peer: n.peer.Name,
		Heartbeat: s.cfg.Pace.Heartbeat, Timeout: s.cfg.Pace.Timeout,
		Continue: s.cfg.Lone == config.LoneContinue, Succeeds: n.legacy != nil && slices.Contains(n.legacy.Served, s.cfg.Name),
		Prefer: s.cfg.Prefer, Failback: s.cfg.Failback == config.FailbackAuto, HoldOff: holdOff * s.cfg.Pace.Timeout,
	}
	switch {
	case n.witness != nil:
		set.Arbiter = failover.ByWitness
	case s.cfg.Fence != "":
		set.Arbiter = failover.ByFence
	case len(n.cfg.Witness.Ping) > 0:
		set.Arbiter = failover.ByPing
	default:
		set.Arbiter = failover.ByNobody
	}
	return set
}

// close gives up what newService opened, when nothing has run.
func (s *service) close() error {
	for _, v := range s.volumes {
		v.disks.Close()
		v.store.close()
	}
	return s.file.Close()
}

// run owns the machine until ctx ends.
func (s *service) run(ctx context.Context) error {
	defer close(s.halted)
	tick := time.NewTicker(s.cfg.Pace.Heartbeat)
	defer tick.Stop()
	s.last = s.node.clock()
	s.cleanUp(ctx)
	s.app.rest(s.file.State().Maintenance)
	for err := s.tick(ctx); ; {
		if err != nil {
			s.shut()
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.halting:
			return nil
		case p := <-s.inputs:
			err = s.takePosted(ctx, p)
		case <-s.wake:
			err = s.take(ctx, s.look)
		case <-tick.C:
			s.noticeFreeze()
			err = s.tick(ctx)
		}
	}
}

// tick looks at the volumes, and lets time pass.
func (s *service) tick(ctx context.Context) error {
	if err := s.take(ctx, s.look); err != nil {
		return err
	}
	return s.take(ctx, (*failover.Machine).Tick)
}

// halt ends run: nothing is decided here any more, and no volume connects.
func (s *service) halt(ctx context.Context) error {
	s.held.Store(true)
	close(s.halting)
	select {
	case <-s.halted:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("service %s does not come to rest", s.cfg.Name)
	}
}

// take gives the machine one input and carries out what follows.
func (s *service) take(ctx context.Context, in input) error {
	return s.takePosted(ctx, posted{in: in})
}

func (s *service) takePosted(ctx context.Context, p posted) error {
	now := s.node.clock()
	s.last = now
	actions := p.in(&s.machine, now)
	s.publish(now)
	if p.taken != nil {
		close(p.taken)
	}
	err := s.perform(ctx, actions)
	s.disinherit(ctx)
	return err
}

// put hands an input to run. It reports whether run will take it.
func (s *service) put(ctx context.Context, in input) bool {
	return s.post(ctx, posted{in: in})
}

func (s *service) post(ctx context.Context, p posted) bool {
	select {
	case s.inputs <- p:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *service) publish(now time.Duration) {
	m := s.machine
	old := s.shown.Swap(&shown{machine: m, at: now})
	if old == nil || old.machine.State() != m.State() {
		s.mu.Lock()
		s.since = time.Now()
		s.mu.Unlock()
	}
}

// noticeFreeze tells of a time in which this process did not run: its leases may
// have ended without its noticing, and others may have its address by now.
func (s *service) noticeFreeze() {
	if still := s.node.clock() - s.last; still > s.cfg.Pace.Timeout {
		s.event("freeze", "", "", fmt.Sprintf("this node stood still for %v", still.Round(time.Millisecond)), "")
		s.app.announce("after standing still")
	}
}

// ask takes a volume's question; the machine learns it with the next look.
// Called on a loop's thread.
func (s *service) ask(v *volume, a mirror.Ask) {
	s.mu.Lock()
	s.asked[v] = a
	s.mu.Unlock()
	s.poke()
}

// observed hears of a change of a volume. Called on a loop's thread.
func (s *service) observed(v *volume, e mirror.Event) {
	s.node.events.Add(control.Event{
		Service: s.cfg.Name, Volume: v.cfg.Name, Kind: e.Kind, Old: e.Old, New: e.New, Reason: e.Reason, Who: s.node.self.Name,
	})
	s.poke()
}

func (s *service) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// mayConnect says why no volume may connect to the peer now, or nil.
func (s *service) mayConnect() error {
	if s.held.Load() || s.parting.Load() {
		return errors.New("the service is stopped here, or about to go on alone")
	}
	return nil
}

// hung is for how long the data path has stood still, at the worst volume.
func (s *service) hung() time.Duration {
	var longest time.Duration
	for _, v := range s.volumes {
		if h := v.Hung(); h >= v.patience() {
			longest = max(longest, h)
		}
	}
	return longest
}

// each runs f for every volume on its loop's thread, in order with everything
// else that is posted there, and waits for none.
func (s *service) each(f func(v *volume, now time.Duration)) {
	for _, v := range s.volumes {
		v.post(func(now time.Duration) { f(v, now) })
	}
}

func (s *service) event(kind, old, new, reason, who string) {
	if who == "" {
		who = s.node.self.Name
	}
	s.log.Info(kind, "old", old, "new", new, "reason", reason, "who", who)
	s.node.events.Add(control.Event{Service: s.cfg.Name, Kind: kind, Old: old, New: new, Reason: reason, Who: who})
}

// whereServed is what a client is told that asks here for a volume and not there.
func (s *service) whereServed(v *volume) string {
	m := &s.shown.Load().machine
	switch {
	case v.status.Load().PeerPrimary, m.PeerServes():
		return fmt.Sprintf("this node is secondary; %s serves this volume", s.node.peer.Name)
	case m.State() == failover.StateAlone, m.State() == failover.StatePrim:
		return "this node is about to serve this volume: try again"
	}
	return fmt.Sprintf("this node does not serve this volume; ask %s, or `twinbd status`", s.node.peer.Name)
}
