// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"cmp"
	"fmt"
	"io"
	"time"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/internal/block"
)

// Config is what an engine needs to know. Zero durations and sizes stand for
// the defaults.
type Config struct {
	Cluster, Volume string
	Node, Peer      string

	// Punch lets Trim and WriteZeroes give space back (a thin disk).
	Punch bool

	// PeerTimeout is how long a connected peer may leave anything
	// unacknowledged before it counts as lost (rule 15): 5 s.
	PeerTimeout time.Duration

	// DiskTimeout is how long a disk may take for a task before it counts as
	// failed (rule 8): 10 s.
	DiskTimeout time.Duration

	// FlushEvery is when the engine flushes both disks by itself at the latest
	// (rule 4): 2 s.
	FlushEvery time.Duration

	// FlushBytes is the most that may be written and not flushed: 1 GiB. The
	// engine flushes at half of it, and allows less to disks that flush slowly,
	// see backlog.go. Changes beyond it wait.
	FlushBytes int64

	// Compress lets a resync compress what it sends.
	Compress bool

	// Incarnation names this process: a peer that comes back with another one
	// has restarted, and may have lost what it had not flushed.
	Incarnation uint64

	// Random is where generations and session numbers come from.
	Random io.Reader

	// Arbiter decides who may go on alone; Observe is told of every change of
	// state. Both are called on the engine's thread and return at once.
	Arbiter Arbiter
	Observe func(Event)

	// Recall takes back the memory of a task that a disk does not give back:
	// when it returns, nobody touches the task's Data or Extents any more. It
	// is called on the engine's thread and does not wait for the disk; the
	// task may come back later or never. It may be nil where disks always
	// answer.
	Recall func(*block.Task)
}

const (
	defaultPeerTimeout = 5 * time.Second
	defaultDiskTimeout = 10 * time.Second
	defaultFlushEvery  = 2 * time.Second
	defaultFlushBytes  = 1 << 30
)

// Event is one change of state of a volume.
type Event struct {
	Volume string
	Kind   string // "role", "session", "disk", "right", "resync", "verify"
	Old    string
	New    string
	Reason string
}

// Right is what the arbiter has granted a primary.
type Right uint8

// The rights. A primary in RightPair acknowledges only what the peer has too;
// one with RightAlone may go on without it.
const (
	RightNone Right = iota
	RightPair
	RightAlone
)

func (r Right) String() string { return [...]string{"none", "pair", "alone"}[r] }

// Ask is what an engine needs from its Arbiter before it can go on.
type Ask uint8

const (
	// AskAlone: the peer is lost, the local disk is flushed, and nothing is
	// acknowledged until SetRight(RightAlone). Every volume of the service
	// must have stopped replicating before the arbiter grants it (rule 10).
	AskAlone Ask = iota

	// AskPeer: the local disk has failed; the peer's is the only copy. Nothing
	// is acknowledged until the record names the peer and RecordNamesPeer is
	// called (rule 18).
	AskPeer
)

// Arbiter is asked before the engine acknowledges what the peer does not have.
// It answers by SetRight or RecordNamesPeer, any time later, or never: then
// clients wait. A question is repeated by nobody; the arbiter keeps it.
type Arbiter interface {
	Ask(Ask)
}

// Engine replicates one volume. All methods are for one thread: the one that
// drives the volume.
type Engine struct {
	cfg   Config
	now   time.Duration
	size  int64
	piece int64 // length of the longest change that is carried out whole

	header bitmap.Header
	dirty  *bitmap.Bits
	meta   metaWriter
	marks  marks

	primary   bool
	promoting promotion
	leaving   departure
	served    uint64 // how often it became primary
	right     Right
	demoted   block.Status // what requests get when not primary
	local     diskState
	localWhy  string
	broke     bool          // the disk failed in this process, which may still have tasks in it
	silent    string        // why the last good copy is waited for; empty: it is not
	checked   time.Duration // when CheckDisk was called last
	watched   time.Duration // since when it has been called regularly

	locks  lockTable
	free   []*lock // locks freed in this turn, not yet told
	ops    opPool
	run    []*op // admitted in this turn, to be sent and written
	frozen opQueue
	held   opQueue // done, but may not be acknowledged yet
	alone  aloneState

	window  window // what the peer has not acknowledged
	backlog backlog
	rounds  rounds

	session  session
	follower follower
	resync   resync
	verify   verify
	remote   remote
	moments  moments

	tasks []*block.Task
	spare []*block.Task

	counters Counters
}

// diskState is the state of the local disk in this process; what must outlive
// it stands in the header.
type diskState uint8

const (
	diskGood diskState = iota
	diskFailed
)

func (d diskState) String() string { return [...]string{"good", "failed"}[d] }

// New returns an engine on loaded metadata. Intents that were left by a crash
// become dirty blocks (rule 6). The engine is secondary until Promote.
func New(cfg Config, m *bitmap.Metadata) *Engine {
	e := &Engine{cfg: cfg.withDefaults(), size: m.Header.Size, header: m.Header, dirty: m.Bits, demoted: block.ShuttingDown}
	e.locks.init()
	e.meta.init(e, m)
	e.piece = pieceLimit(m.Layout)
	e.marks.init(e, m)
	e.window.init()
	e.backlog.init(&e.cfg)
	e.rounds.init()
	e.follower.engine = e
	e.resync.engine = e
	e.verify.engine = e
	if m.Header.State == bitmap.Failed {
		e.local, e.localWhy = diskFailed, m.Header.Reason
	}
	return e
}

func (c Config) withDefaults() Config {
	c.PeerTimeout = cmp.Or(c.PeerTimeout, defaultPeerTimeout)
	c.DiskTimeout = cmp.Or(c.DiskTimeout, defaultDiskTimeout)
	c.FlushEvery = cmp.Or(c.FlushEvery, defaultFlushEvery)
	c.FlushBytes = cmp.Or(c.FlushBytes, defaultFlushBytes)
	if c.Observe == nil {
		c.Observe = func(Event) {}
	}
	if c.Recall == nil {
		c.Recall = func(*block.Task) {}
	}
	return c
}

// Submit takes a batch of requests. Each comes back through its Owner, maybe
// before Submit returns.
func (e *Engine) Submit(now time.Duration, b *block.Batch) {
	e.now = now
	for _, r := range b.Requests {
		e.admit(r)
	}
	e.settle()
}

// Finished takes a task back whose outcome stands in its Err.
func (e *Engine) Finished(now time.Duration, t *block.Task) {
	e.now = now
	t.Engine.(tasker).finished(t)
	e.settle()
}

// tasker is whoever gave a task away.
type tasker interface{ finished(*block.Task) }

// Tick lets time pass: timeouts, flushes by the engine itself, resync. It
// wants to be called at least every TickEvery.
func (e *Engine) Tick(now time.Duration) {
	e.now = now
	e.session.tick(e)
	e.marks.tick(e)
	e.moments.tick(e)
	e.resync.pump()
	e.verify.pump()
	e.settle()
}

// TickEvery is how often Tick wants to be called.
const TickEvery = 100 * time.Millisecond

// Tasks returns the disk tasks that became due, in order; the slice is valid
// until the next call of Tasks. The caller must have sent the links' output first:
// then the peer works while this node writes, and no byte reaches either disk
// that the other could not learn of from the intents (rule 1).
func (e *Engine) Tasks() []*block.Task {
	t := e.tasks
	e.tasks, e.spare = e.spare[:0], t
	return t
}

func (e *Engine) do(t *block.Task) { e.tasks = append(e.tasks, t) }

// settle does what the last input made possible, until nothing more is. Every
// exported method that takes an input ends with it, once.
func (e *Engine) settle() {
	e.serve()
	if e.primary && e.backlog.due() {
		e.rounds.want(e)
	}
	for len(e.free) > 0 || len(e.run) > 0 || e.marks.retry || e.mayRoute(e.mode()) {
		for i := 0; i < len(e.free); i++ {
			e.free[i].owner.locked()
		}
		e.free = e.free[:0]
		if e.marks.retry {
			e.retryIntents()
		}
		e.launch()
	}
	e.follower.startSync()
	e.depart()
	e.greet()
	e.meta.start()
}

func (e *Engine) unlock(l *lock) {
	if mutated("a copy holds the range lock") && !l.held {
		return
	}
	e.free = e.locks.release(l, e.free)
}

// Size is the volume's size in bytes.
func (e *Engine) Size() int64 { return e.size }

// Primary reports whether the engine serves clients.
func (e *Engine) Primary() bool { return e.primary }

// NeedsRight reports whether the engine serves clients, or is about to: a
// right that changes between Promote and its end is the one that counts.
func (e *Engine) NeedsRight() bool { return e.primary || e.promoting.active() }

func (e *Engine) observe(kind, old, new, reason string) {
	e.cfg.Observe(Event{Volume: e.cfg.Volume, Kind: kind, Old: old, New: new, Reason: reason})
}

// complete gives a request back (the last step of every path).
func (e *Engine) complete(r *block.Request, s block.Status) {
	r.Status = s
	r.Engine = nil
	r.Owner.Complete(r)
}

func bug(format string, args ...any) { panic("mirror: " + fmt.Sprintf(format, args...)) }
