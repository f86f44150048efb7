// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/internal/config"
	"github.com/twinbd/twinbd/internal/loop"
	"github.com/twinbd/twinbd/mirror"
	"github.com/twinbd/twinbd/nbd"
)

// volume is one volume of this node: a loop that drives an engine, its disks,
// its clients' sessions and its links to the peer. Everything below the line
// belongs to the loop's thread.
type volume struct {
	cfg     *config.Volume
	service *service
	log     *slog.Logger
	store   *store
	loop    *loop.Loop
	status  atomic.Pointer[mirror.Status]
	linked  atomic.Pointer[link] // the links to the peer, nil while there are none
	lease   lease                // until when replies may leave
	heard   atomic.Uint64        // the last word on being alone that it has taken, and shown in its status
	device  *device              // nil: none is configured

	resolving sync.Mutex    // held while a split is being resolved here
	lost      chan struct{} // closed when the loop hangs and is not waited for any more

	engine   *mirror.Engine
	disks    *loop.Disks
	batch    block.Batch
	memory   *block.Share // of all clients
	sessions map[*nbd.Session]*loop.Port
	resting  bool       // no client is let in
	data     *loop.Port // to the peer; nil while there is none
	bulk     *loop.Port
	nextTick time.Duration
}

// link is one pair of connections to the peer.
type link struct {
	remote string        // the address at the other end
	ended  chan struct{} // closed when the engine is done with them
}

// unsyncedLimit is how much may be written and not synced before writes go to
// workers: the most that the engine lets come together before it flushes by
// itself, so that it only counts when the flush does not keep up.
const unsyncedLimit = 512 << 20

// clientMemory bounds what the requests and answers of all clients of a volume
// take, beyond one message in each direction for each: clients that read no
// answers, or send more than the disks take, wait.
const clientMemory = 256 << 20

// openVolume opens the disks and makes the engine. Nothing runs yet.
func openVolume(s *service, cfg *config.Volume, incarnation uint64) (*volume, error) {
	n := s.node
	v := &volume{
		cfg: cfg, service: s, log: n.log.With("volume", cfg.Name),
		store:    &store{cfg: n.cfg, volume: cfg, node: n.self.Name},
		lease:    lease{clock: n.clock},
		memory:   block.NewShare(clientMemory),
		sessions: make(map[*nbd.Session]*loop.Port), lost: make(chan struct{}),
	}
	if err := v.store.open(); err != nil {
		return nil, err
	}
	m, err := v.store.load()
	if err != nil {
		v.store.close()
		return nil, err
	}
	for _, p := range m.BadPages {
		v.log.Warn("metadata page is damaged: its blocks count as dirty", "page", p)
	}
	if v.device, err = newDevice(v); err != nil {
		v.store.close()
		return nil, err
	}
	v.loop = loop.New(loop.Options{Name: cfg.Name, Logger: v.log})
	v.drive(v.store.data, v.store.meta, loop.DefaultSlowAfter)
	v.engine = mirror.New(mirror.Config{
		Cluster: n.cfg.Cluster, Volume: cfg.Name, Node: n.self.Name, Peer: n.peer.Name,
		Punch: cfg.Thin, PeerTimeout: s.cfg.PeerTimeout, DiskTimeout: s.cfg.DiskTimeout,
		Compress: true, Incarnation: incarnation, Random: rand.Reader,
		Arbiter: v, Observe: v.observe, Recall: func(t *block.Task) { v.disks.Recall(t) },
	}, m)
	v.publish()
	return v, nil
}

// drive makes what carries out the engine's tasks.
func (v *volume) drive(data, meta block.Disk, slowAfter time.Duration) {
	o := loop.DiskOptions{InlineSync: true, UnsyncedLimit: unsyncedLimit, SlowAfter: slowAfter}
	v.disks = loop.NewDisks(v.loop, data, meta, o, v.finished)
}

// run drives the volume until ctx ends, and looks from outside whether its loop
// turns. At the end a loop that hangs is not waited for.
func (v *volume) run(ctx context.Context) error {
	ended := make(chan error, 1)
	go func() { ended <- v.turn(ctx) }()
	tick := time.NewTicker(v.patience() / 8)
	defer tick.Stop()
	for w := (watch{volume: v}); ; {
		select {
		case err := <-ended:
			return err
		case <-tick.C:
		}
		if w.look(); w.hung && ctx.Err() != nil {
			close(v.lost)
			return fmt.Errorf("stop volume %s: %s; what it left undone is marked", v.cfg.Name, v.hungWhy())
		}
	}
}

// turn runs the loop, then closes the disks.
func (v *volume) turn(ctx context.Context) error {
	err := v.loop.Run(ctx, v)
	if closeErr := v.disks.Close(); closeErr != nil {
		return errors.Join(err, closeErr) // a hung disk is not closed: it is in use
	}
	v.store.close()
	return err
}

// Turn is the volume's part of a turn of the loop: requests that came together
// become one batch, what goes to the peer leaves first, then the local disk
// works.
func (v *volume) Turn(now time.Duration) {
	if len(v.batch.Requests) > 0 {
		v.engine.Submit(now, &v.batch)
		clear(v.batch.Requests)
		v.batch.Requests = v.batch.Requests[:0]
	}
	if now >= v.nextTick {
		v.nextTick = now + mirror.TickEvery
		v.engine.Tick(now)
		v.engine.CheckDisk(now, v.disks.Stuck())
		v.publish()
	}
	v.dispatch()
}

// Deadline is when the engine's next tick is due.
func (v *volume) Deadline() time.Duration { return v.nextTick }

// finished takes a task back from the disks.
func (v *volume) finished(t *block.Task) {
	v.engine.Finished(v.loop.Now(), t)
	v.dispatch()
}

// dispatch gives the disks what became due, after the peer got what is for it
// (rule 1 is the engine's; this order is only for speed: the peer works while
// we do).
func (v *volume) dispatch() {
	for tasks := v.engine.Tasks(); len(tasks) > 0; tasks = v.engine.Tasks() {
		if v.data != nil {
			v.data.Flush()
		}
		v.disks.DoAll(tasks)
	}
}

// Ask passes the engine's question on to the service (mirror.Arbiter).
func (v *volume) Ask(a mirror.Ask) { v.service.ask(v, a) }

// observe tells the service and the log of a change of state.
func (v *volume) observe(e mirror.Event) {
	v.log.Info(e.Kind+" changed", "old", e.Old, "new", e.New, "reason", e.Reason)
	v.publish()
	v.service.observed(v, e)
}

func (v *volume) publish() {
	if v.engine == nil { // while it is being made
		return
	}
	s := v.engine.Status()
	v.status.Store(&s)
}

// do runs f on the loop's thread and waits for it. It reports whether that was
// done: not when the loop has ended, or hangs while the node stops.
func (v *volume) do(f func(now time.Duration)) bool { return v.doUntil(nil, f) }

// doUntil is do as long as f has not begun when ended is closed; then it is never
// run.
func (v *volume) doUntil(ended <-chan struct{}, f func(now time.Duration)) bool {
	done := make(chan struct{})
	var taken atomic.Bool
	posted := v.loop.Post(func() {
		if taken.Swap(true) {
			return
		}
		defer close(done)
		f(v.loop.Now())
		v.publish()
	})
	if !posted {
		return false
	}
	select {
	case <-done:
		return true
	case <-ended:
		if !taken.Swap(true) {
			return false
		}
	case <-v.lost:
		return false
	}
	select {
	case <-done:
		return true
	case <-v.lost:
		return false
	}
}

// post runs f on the loop's thread, after everything that was posted before, and
// does not wait. It reports whether the loop still runs.
func (v *volume) post(f func(now time.Duration)) bool {
	return v.loop.Post(func() {
		f(v.loop.Now())
		v.publish()
		for _, port := range v.sessions { // what a closed gate held back
			port.Kick()
		}
	})
}

// connect gives two fresh connections to the peer to the engine, and returns
// when they have ended.
func (v *volume) connect(ctx context.Context, data, bulk net.Conn) error {
	k := &link{remote: data.RemoteAddr().String(), ended: make(chan struct{})}
	var joined error
	err := errStopping
	switch {
	case v.Hung() >= v.patience(): // else tries would pile up until it turns again
		err = errors.New(v.hungWhy())
	case v.doUntil(ctx.Done(), func(now time.Duration) { joined = v.join(now, k, data, bulk) }):
		err = joined
	}
	if err != nil {
		data.Close()
		bulk.Close()
		return err
	}
	select {
	case <-k.ended:
	case <-ctx.Done():
	}
	return nil
}

// join makes the two connections the ports of a new session.
func (v *volume) join(now time.Duration, k *link, data, bulk net.Conn) error {
	d, b := v.engine.Connect(now)
	open := 2
	dropped := func(port **loop.Port) func() {
		return func() {
			if *port != nil {
				(*port).Close()
			}
			if open--; open == 0 {
				v.linked.CompareAndSwap(k, nil)
				close(k.ended)
			}
		}
	}
	var dataPort, bulkPort *loop.Port
	d.Dropped, b.Dropped = dropped(&dataPort), dropped(&bulkPort)
	v.linked.Store(k)
	var err error
	if dataPort, err = v.loop.Add(data, d); err == nil {
		bulkPort, err = v.loop.Add(bulk, b)
	}
	if err != nil {
		v.engine.Disconnect(now, err.Error())
		return fmt.Errorf("connect volume %s: %w", v.cfg.Name, err)
	}
	v.data, v.bulk = dataPort, bulkPort
	return nil
}

// admit makes a client's connection a session of the volume.
func (v *volume) admit(n *nbd.Negotiated) {
	if !v.loop.Post(func() { v.enter(n) }) {
		n.Conn.Close()
		n.Done()
	}
}

func (v *volume) enter(n *nbd.Negotiated) {
	if v.resting {
		n.Conn.Close()
		n.Done()
		return
	}
	var port *loop.Port
	var session *nbd.Session
	session = nbd.NewSession(n, &v.batch, nbd.Options{
		Share: v.memory,
		Wake:  func() { port.Kick() },
		Hangup: func(err error) {
			if err != nil {
				v.log.Warn("client dropped", "client", n.Conn.RemoteAddr(), "error", err)
			}
			port.Close()
		},
		Idle: func() { delete(v.sessions, session) },
	})
	var err error
	if port, err = v.loop.Add(n.Conn, session); err != nil {
		v.log.Warn("client not admitted", "error", err)
		n.Conn.Close()
		n.Done()
		return
	}
	n.OnEvict(func() { v.loop.Post(func() { port.Close() }) })
	port.Gate(v.lease.holds)
	v.sessions[session] = port
}

// cutOff ends all clients' connections, and nothing more is said on them: not
// even what was about to leave.
func (v *volume) cutOff() {
	for _, port := range v.sessions {
		port.Gate(func() bool { return false })
		port.Close()
	}
}

// letGo ends the connections of clients that are still there: what a session had
// to say has left, or may not leave any more.
func (v *volume) letGo() {
	for _, port := range v.sessions {
		port.Close()
	}
}

// expel ends all clients' sessions: what was not admitted is refused.
func (v *volume) expel() {
	for session, port := range v.sessions {
		session.Shutdown()
		port.Kick()
	}
}
