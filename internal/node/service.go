// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/failover"
	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/internal/config"
	"github.com/twinbd/twinbd/mirror"
)

// service decides for all volumes of a service together who may go on alone,
// and keeps the record at the witness. Its goroutine (run) is the only one that
// asks for changes of the record, so there is never more than one under way.
type service struct {
	node    *Node
	cfg     *config.Service
	log     *slog.Logger
	volumes []*volume
	file    *failover.StateFile
	wake    chan struct{}

	// turn is held by whoever changes the record or the role: the goroutine,
	// or an operator's command.
	turn sync.Mutex

	mu      sync.Mutex
	asked   map[*volume]mirror.Ask // what the volumes wait for
	hold    bool                   // the service goes alone: no volume may connect (rule 10)
	right   mirror.Right
	role    role
	state   failover.NodeState
	pending *failover.Request // sent and not answered: sent again, as it is
	seen    uint64            // serial of the witness's last answer
	record  failover.Record   // as in that answer
	why     string            // why the last thing did not work
	since   time.Time
}

// role is what the node is for the service.
type role uint8

const (
	roleNone role = iota
	rolePrimary
	roleLost // was primary; the record names the other
)

func (r role) String() string { return [...]string{"none", "primary", "lost"}[r] }

func newService(n *Node, cfg *config.Service) (*service, error) {
	file, damaged, err := failover.OpenState(n.dir, failover.StateOwner{Cluster: n.cfg.Cluster, Node: n.self.Name, Service: cfg.Name})
	if err != nil {
		return nil, err
	}
	s := &service{
		node: n, cfg: cfg, log: n.log.With("service", cfg.Name), file: file, wake: make(chan struct{}, 1),
		asked: make(map[*volume]mirror.Ask), state: file.State(), since: time.Now(),
	}
	if damaged != nil {
		s.log.Warn("one copy of the state is damaged, the other is used", "error", damaged)
	}
	for i := range cfg.Volumes {
		v, err := openVolume(s, &cfg.Volumes[i], n.incarnation)
		if err != nil {
			return nil, errors.Join(err, s.close())
		}
		v.engine.SetHolder(s.state.Holder == n.self.Name)
		s.volumes = append(s.volumes, v)
	}
	return s, nil
}

// close gives up what newService opened, when nothing has run.
func (s *service) close() error {
	for _, v := range s.volumes {
		v.disks.Close()
		v.store.close()
	}
	return s.file.Close()
}

// ask takes a volume's question; run answers it. Called on a loop's thread.
func (s *service) ask(v *volume, a mirror.Ask) {
	s.mu.Lock()
	s.asked[v] = a
	s.hold = s.hold || a == mirror.AskAlone && s.role == rolePrimary
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
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hold {
		return errors.New("the service is about to go on alone")
	}
	return nil
}

func (s *service) serves() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.role == rolePrimary
}

// retryEvery is how often an unanswered question is repeated.
const retryEvery = 250 * time.Millisecond

// run answers the volumes' questions and brings the record back to pair.
func (s *service) run(ctx context.Context) error {
	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		case <-tick.C:
		}
		s.turn.Lock()
		err := s.step(ctx)
		s.turn.Unlock()
		if ctx.Err() == nil {
			s.explain(err)
		}
	}
}

func (s *service) explain(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	why := ""
	if err != nil {
		why = err.Error()
	}
	if why != "" && why != s.why {
		s.log.Warn("waiting", "error", why)
	}
	s.why = why
}

// step does the one thing that is due.
func (s *service) step(ctx context.Context) error {
	s.mu.Lock()
	role, right, pending := s.role, s.right, s.pending
	s.mu.Unlock()
	if pending != nil { // what became of it decides what can be asked next
		if _, err := s.change(ctx, pending); err != nil {
			return err
		}
	}
	switch {
	case role != rolePrimary:
	case s.anyAsked(mirror.AskPeer):
		return s.givePeer(ctx)
	case s.anyAsked(mirror.AskAlone):
		return s.goAlone(ctx)
	case right != mirror.RightPair && s.allMirroring():
		return s.pair(ctx)
	}
	return nil
}

func (s *service) anyAsked(a mirror.Ask) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.asked {
		if a == b {
			return true
		}
	}
	return false
}

func (s *service) allMirroring() bool {
	for _, v := range s.volumes {
		if v.status.Load().Session != mirror.Mirroring {
			return false
		}
	}
	return true
}

// each runs f for every volume on its loop's thread.
func (s *service) each(f func(v *volume, now time.Duration)) {
	for _, v := range s.volumes {
		v.do(func(now time.Duration) { f(v, now) })
	}
}

// goAlone: replication of every volume stops (rule 10), each flushes and asks;
// then the record says alone (rule 16).
func (s *service) goAlone(ctx context.Context) error {
	s.each(func(v *volume, now time.Duration) { v.engine.Disconnect(now, "the service goes on alone") })
	s.mu.Lock()
	everybody := len(s.asked) == len(s.volumes)
	s.mu.Unlock()
	if !everybody {
		return nil // the others are flushing
	}
	granted, err := s.requestAlone(ctx, s.node.self.Name)
	if err != nil || !granted {
		return err
	}
	s.setRight(mirror.RightAlone, "the peer is lost")
	return nil
}

// requestAlone asks for the record (holder, alone). It reports whether that is
// so now; a node that is not the holder any more stops serving.
func (s *service) requestAlone(ctx context.Context, holder string) (bool, error) {
	if s.node.witness == nil {
		return true, s.remember(func(st *failover.NodeState) { st.Epoch++; st.Holder = holder })
	}
	answer, err := s.change(ctx, &failover.Request{Replaces: s.epoch(), Holder: holder, Mode: failover.Alone})
	if err != nil {
		return false, err
	}
	if !answer.Granted {
		return false, s.refused(answer)
	}
	return true, nil
}

// refused: the record is not what this node believed.
func (s *service) refused(a failover.Answer) error {
	switch {
	case a.Void:
		return errors.New("the witness has restarted: asking anew")
	case a.Record.Holder == s.node.self.Name && a.Record.Epoch > s.epoch():
		// Our own change, whose answer we never got.
		return s.remember(func(st *failover.NodeState) { st.Epoch, st.Holder = a.Record.Epoch, a.Record.Holder })
	case a.Record.Holder != s.node.self.Name && !a.Record.Empty():
		s.lose(fmt.Sprintf("the service is at %v", a.Record))
	}
	return errors.New(a.Reason)
}

// lose stops serving at once: the record names the other node.
func (s *service) lose(reason string) {
	s.mu.Lock()
	s.role, s.right, s.hold = roleLost, mirror.RightNone, false
	clear(s.asked)
	s.since = time.Now()
	s.mu.Unlock()
	s.event("role", "primary", "lost", reason)
	for _, v := range s.volumes {
		v.do(func(now time.Duration) {
			v.engine.SetHolder(false)
			v.engine.Demote(now, block.ShuttingDown, func() {})
			v.expel()
		})
	}
}

// givePeer: a volume's disk here has failed; the record names the peer before
// anything is acknowledged without it (rule 18).
func (s *service) givePeer(ctx context.Context) error {
	granted, err := s.requestAlone(ctx, s.node.peer.Name)
	if err != nil || !granted {
		return err
	}
	s.mu.Lock()
	clear(s.asked)
	s.right = mirror.RightNone
	s.mu.Unlock()
	s.event("record", s.node.self.Name, s.node.peer.Name, "the disk here has failed; served from the peer's")
	s.each(func(v *volume, now time.Duration) {
		v.engine.SetHolder(false)
		v.engine.RecordNamesPeer(now)
	})
	return nil
}

// pair brings the record back to pair (rule 16): the peer durably learns the
// next epoch, this node gives up alone, then asks. While the answer is missing
// it has neither right.
func (s *service) pair(ctx context.Context) error {
	next := s.epoch() + 1
	if _, err := s.node.peers.ask(ctx, call{Verb: callLearn, Service: s.cfg.Name, Epoch: next}); err != nil {
		return err
	}
	s.setRight(mirror.RightNone, "")
	if s.node.witness != nil {
		answer, err := s.change(ctx, &failover.Request{Replaces: s.epoch(), Holder: s.node.self.Name, Mode: failover.Pair})
		if err != nil {
			return err
		}
		if !answer.Granted {
			return s.refused(answer)
		}
	} else if err := s.remember(func(st *failover.NodeState) { st.Epoch = next }); err != nil {
		return err
	}
	s.setRight(mirror.RightPair, "every volume is up to date")
	return nil
}

// learn is the peer's word that this node is in step in an epoch: durable
// before it is answered.
func (s *service) learn(_ context.Context, epoch uint64) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	if s.serves() {
		return errors.New("this node serves the service itself")
	}
	for _, v := range s.volumes {
		if st := v.status.Load(); st.Session != mirror.Mirroring {
			return fmt.Errorf("volume %s is not up to date here", v.cfg.Name)
		}
	}
	if epoch <= s.epoch() && epoch != s.state.InStep {
		return fmt.Errorf("epoch %d is not above %d, which this node knows", epoch, s.epoch())
	}
	return s.remember(func(st *failover.NodeState) {
		st.Epoch, st.InStep, st.Holder = epoch, epoch, s.node.peer.Name
	})
}

// give writes the peer into the record, alone: this node holds it and serves
// nothing, and both found that the peer's blocks win (rule 22).
func (s *service) give(ctx context.Context) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	if s.serves() {
		return errors.New("it serves the service")
	}
	for _, v := range s.volumes {
		st := v.status.Load()
		if st.State != bitmap.Consistent {
			return fmt.Errorf("volume %s: the disk of %s is %v, and what it had acknowledged alone may be gone", v.cfg.Name, s.node.self.Name, st.State)
		}
		if st.Session != mirror.Mirroring && (st.Session != mirror.Comparing || st.Source) {
			return fmt.Errorf("volume %s: it is not agreed that the peer's data wins", v.cfg.Name)
		}
	}
	if s.node.witness == nil {
		return nil
	}
	record, err := s.read(ctx)
	if err != nil {
		return err
	}
	if record.Holder != s.node.self.Name {
		return fmt.Errorf("the service is at %v", record)
	}
	answer, err := s.change(ctx, &failover.Request{Replaces: record.Epoch, Holder: s.node.peer.Name, Mode: failover.Alone})
	if err == nil && !answer.Granted {
		err = errors.New(answer.Reason)
	}
	return err
}

// setRight tells every volume, and remembers.
func (s *service) setRight(r mirror.Right, reason string) {
	s.mu.Lock()
	old := s.right
	s.right, s.since = r, time.Now()
	if r == mirror.RightAlone {
		clear(s.asked)
		s.hold = false
	}
	s.mu.Unlock()
	if old != r {
		s.event("right", old.String(), r.String(), reason)
	}
	s.each(func(v *volume, now time.Duration) {
		v.engine.SetHolder(true)
		v.engine.SetRight(now, r)
	})
}

// epoch is the highest that this node durably knows.
func (s *service) epoch() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.Epoch
}

// remember changes the node's own state, durably before anybody acts on it.
func (s *service) remember(f func(*failover.NodeState)) error {
	s.mu.Lock()
	next := s.state
	s.mu.Unlock()
	f(&next)
	if err := s.file.Store(next); err != nil {
		return fmt.Errorf("remember state of %s: %w", s.cfg.Name, err)
	}
	s.mu.Lock()
	s.state = next
	s.mu.Unlock()
	return nil
}

// change sends a request to the witness. Without an answer it stays pending and
// is sent again as it is, for nobody knows what became of it.
func (s *service) change(ctx context.Context, q *failover.Request) (failover.Answer, error) {
	s.mu.Lock()
	if s.pending != nil && s.pending != q {
		s.mu.Unlock()
		return failover.Answer{}, errors.New("an earlier request is not answered yet")
	}
	if q.Token == (failover.Token{}) {
		q.Service, q.Token, q.Seen = s.cfg.Name, failover.NewToken(), s.seen
	}
	s.pending = q
	s.mu.Unlock()
	answer, err := s.node.witness.Change(ctx, *q)
	if err != nil {
		return answer, fmt.Errorf("witness: %w", err)
	}
	s.mu.Lock()
	s.pending = nil
	s.mu.Unlock()
	s.heard(answer)
	if answer.Granted {
		err = s.remember(func(st *failover.NodeState) {
			st.Epoch, st.Holder = max(st.Epoch, answer.Record.Epoch), answer.Record.Holder
		})
	}
	return answer, err
}

// read asks the witness for the record.
func (s *service) read(ctx context.Context) (failover.Record, error) {
	s.mu.Lock()
	q := failover.Query{Service: s.cfg.Name, Seen: s.seen, Known: s.state.Epoch, Serving: s.role == rolePrimary}
	s.mu.Unlock()
	answer, err := s.node.witness.Read(ctx, q)
	if err != nil {
		return failover.Record{}, fmt.Errorf("witness: %w", err)
	}
	s.heard(answer)
	return answer.Record, nil
}

func (s *service) heard(a failover.Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen, s.record = a.Serial, a.Record
}

func (s *service) event(kind, old, new, reason string) {
	s.log.Info(kind+" changed", "old", old, "new", new, "reason", reason)
	s.node.events.Add(control.Event{Service: s.cfg.Name, Kind: kind, Old: old, New: new, Reason: reason, Who: s.node.self.Name})
}

// whereServed is what a client is told that asks here for a volume and not there.
func (s *service) whereServed(v *volume) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.role == rolePrimary:
		return "this node is about to serve this volume: try again"
	case v.status.Load().PeerPrimary, s.state.Holder == s.node.peer.Name:
		return fmt.Sprintf("this node is secondary; %s serves this volume", s.node.peer.Name)
	}
	return fmt.Sprintf("this node does not serve this volume; ask %s, or `twinbd status`", s.node.peer.Name)
}
