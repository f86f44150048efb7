// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
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

	engine   *mirror.Engine
	disks    *loop.Disks
	batch    block.Batch
	sessions map[*nbd.Session]*loop.Port
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
// workers: twice what the engine lets come together before it flushes by
// itself, so that it only counts when the flush does not keep up.
const unsyncedLimit = 512 << 20

// openVolume opens the disks and makes the engine. Nothing runs yet.
func openVolume(s *service, cfg *config.Volume, incarnation uint64) (*volume, error) {
	n := s.node
	v := &volume{
		cfg: cfg, service: s, log: n.log.With("volume", cfg.Name),
		store:    &store{cfg: n.cfg, volume: cfg, node: n.self.Name},
		sessions: make(map[*nbd.Session]*loop.Port),
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
	v.loop = loop.New(loop.Options{Name: cfg.Name, Logger: v.log})
	v.disks = loop.NewDisks(v.loop, v.store.data, v.store.meta, loop.DiskOptions{InlineSync: true, UnsyncedLimit: unsyncedLimit}, v.finished)
	v.engine = mirror.New(mirror.Config{
		Cluster: n.cfg.Cluster, Volume: cfg.Name, Node: n.self.Name, Peer: n.peer.Name,
		Punch: cfg.Thin, PeerTimeout: s.cfg.PeerTimeout, DiskTimeout: s.cfg.DiskTimeout,
		Compress: true, Incarnation: incarnation, Random: rand.Reader,
		Arbiter: v, Observe: v.observe,
	}, m)
	v.publish()
	return v, nil
}

// run drives the volume until ctx ends, then closes its disks.
func (v *volume) run(ctx context.Context) error {
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

// do runs f on the loop's thread and waits for it. It reports whether the loop
// still ran.
func (v *volume) do(f func(now time.Duration)) bool {
	done := make(chan struct{})
	posted := v.loop.Post(func() {
		defer close(done)
		f(v.loop.Now())
		v.publish()
	})
	if posted {
		<-done
	}
	return posted
}

// connect gives two fresh connections to the peer to the engine, and returns
// when they have ended.
func (v *volume) connect(ctx context.Context, data, bulk net.Conn) error {
	k := &link{remote: data.RemoteAddr().String(), ended: make(chan struct{})}
	var err error
	running := v.do(func(now time.Duration) { err = v.join(now, k, data, bulk) })
	if !running || err != nil {
		data.Close()
		bulk.Close()
		return errors.Join(err, ctx.Err())
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
	var port *loop.Port
	var session *nbd.Session
	session = nbd.NewSession(n, &v.batch, nbd.Options{
		Wake: func() { port.Kick() },
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
	v.sessions[session] = port
}

// expel ends all clients' sessions: what was not admitted is refused.
func (v *volume) expel() {
	for session, port := range v.sessions {
		session.Shutdown()
		port.Kick()
	}
}
