// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// DefaultMaxServices is how many services a register keeps by default.
const DefaultMaxServices = 256

// The errors of a Register. With each of them the asker learns nothing about the
// record: a change that ended so may have happened, and is to be repeated with
// the same token.
var (
	// ErrUnusable: the service's file is damaged, or could not be written or
	// flushed. The register grants nothing for it and tells nothing of it.
	ErrUnusable = errors.New("register unusable")

	// ErrFull: the witness keeps as many services as it may.
	ErrFull = errors.New("register full")

	// ErrBadRequest: the request makes no sense.
	ErrBadRequest = errors.New("bad request")
)

// RegisterConfig is what a Register can be told.
type RegisterConfig struct {
	Log         *slog.Logger // required
	MaxServices int          // with a record, and as many without; 0: DefaultMaxServices

	// Clock is the time since any moment. It never goes back, and runs while
	// the machine is suspended; nil: that of the system.
	Clock func() time.Duration

	// Random names the run of the register; nil: crypto/rand. A seeded one
	// makes a simulation repeatable.
	Random io.Reader
}

// Register keeps the records of many services of many clusters, one file each.
// An answer is given only about what is durable. Calls may overlap.
type Register struct {
	dir   Directory
	log   *slog.Logger
	max   int
	clock func() time.Duration
	run   uint64 // names this run; not 0

	services struct {
		sync.Mutex
		byKey map[serviceKey]*entry
		met   []serviceKey // those without a record; the one met first goes first
	}
}

// entry is one service. Its lock is held over the file's writes: nobody is told
// of a record that is not durable yet.
type entry struct {
	sync.Mutex
	slots  *slotFile // nil before the first record
	seat   Seat
	broken error // wraps ErrUnusable; final for this process
}

// OpenRegister opens the records in dir and makes sure that each is durable. A
// damaged file breaks its own service only. The directory stays the caller's.
func OpenRegister(dir Directory, config RegisterConfig) (*Register, error) {
	r := &Register{dir: dir, log: config.Log, max: cmp.Or(config.MaxServices, DefaultMaxServices), clock: config.Clock}
	if r.clock == nil {
		r.clock = NewClock()
	}
	r.services.byKey = make(map[serviceKey]*entry)
	if err := r.beginRun(config.Random); err != nil {
		return nil, err
	}
	names, err := dir.Names()
	if err != nil {
		return nil, fmt.Errorf("list records: %w", err)
	}
	for _, name := range names {
		rest, ok := strings.CutPrefix(name, recordPrefix)
		if !ok || strings.HasSuffix(name, newSuffix) {
			continue
		}
		key, err := parseFileName(rest)
		if err != nil {
			r.log.Warn("a file that is no record is left alone", "file", name, "error", err)
			continue
		}
		r.services.byKey[key] = r.load(key)
	}
	return r, nil
}

func (r *Register) beginRun(random io.Reader) error {
	if random == nil {
		random = rand.Reader
	}
	var b [8]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return fmt.Errorf("name this run: %w", err)
	}
	r.run = max(1, binary.BigEndian.Uint64(b[:]))
	return nil
}

// now is read under a service's lock, so that its seat sees no time go back.
func (r *Register) now() Stamp { return Stamp{Run: r.run, At: r.clock()} }

// load opens one service's record. What goes wrong is the service's state, not
// the register's.
func (r *Register) load(key serviceKey) *entry {
	e := &entry{}
	var record Record
	slots, payload, damaged, err := openSlots(r.dir, key.fileName(), recordKind)
	if err == nil {
		e.slots = slots
		record, err = decodeRecordFile(payload, key)
	}
	if err != nil {
		r.fail(e, key, err)
		return e
	}
	if damaged != nil {
		r.log.Warn("one of two copies of a record was damaged, the other is used",
			"cluster", key.cluster, "service", key.service, "error", damaged)
	}
	e.seat = NewSeat(record, r.clock())
	return e
}

// fail is the one way in which a service becomes unusable.
func (r *Register) fail(e *entry, key serviceKey, cause error) {
	e.broken = fmt.Errorf("%w: the witness's record of %v is unknown, so it grants nothing: %w; hint: "+
		"restart the witness once the disk is sound; if the file %s is damaged, move it away first and run `twinbd primforce %s` after",
		ErrUnusable, key, cause, key.fileName(), key.service)
	r.log.Error("a record is unusable", "cluster", key.cluster, "service", key.service, "error", cause)
}

// Read answers a query (see Seat.Query) with the record as it is: an empty one
// for a service that the witness does not know.
func (r *Register) Read(q Query) (Answer, error) {
	if err := q.check(); err != nil {
		return Answer{}, fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	key := serviceKey{q.Cluster, q.Service}
	e := r.meet(key)
	e.Lock()
	defer e.Unlock()
	if e.broken != nil {
		return Answer{}, e.broken
	}
	had := e.seat.Record
	next, answer := e.seat.Query(r.now(), q)
	if err := r.adopt(e, key, next); err != nil {
		return Answer{}, err
	}
	if answer.Record.View() != had.View() {
		r.log.Warn("a record that was lost is what the nodes know of it",
			"cluster", key.cluster, "service", key.service, "had", had.String(), "record", answer.Record.String())
	}
	return answer, nil
}

// Change decides on a request (see Seat.Change), and answers when the outcome is
// durable.
func (r *Register) Change(q Request) (Answer, error) {
	if err := q.check(); err != nil {
		return Answer{}, fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	key := serviceKey{q.Cluster, q.Service}
	e := r.meet(key)
	e.Lock()
	defer e.Unlock()
	if e.broken != nil {
		return Answer{}, e.broken
	}
	next, answer := e.seat.Change(r.now(), q)
	if err := r.adopt(e, key, next); err != nil {
		return Answer{}, err
	}
	r.report(key, &q, &answer)
	return answer, nil
}

// meet returns the service's entry, and makes one for a service that has none. Of
// those without a record, which anybody can name, it forgets the one met first
// when there are too many: its nodes speak again.
func (r *Register) meet(key serviceKey) *entry {
	s := &r.services
	s.Lock()
	defer s.Unlock()
	if e := s.byKey[key]; e != nil {
		return e
	}
	if len(s.met) >= r.max {
		delete(s.byKey, s.met[0])
		s.met = slices.Delete(s.met, 0, 1)
	}
	e := &entry{}
	s.byKey[key] = e
	s.met = append(s.met, key)
	return e
}

// adopt makes the seat's record durable if it is another one, and the seat
// current.
func (r *Register) adopt(e *entry, key serviceKey, next Seat) error {
	if next.Record != e.seat.Record {
		if err := r.keep(e, key); err != nil {
			return err
		}
		if err := r.store(e, key, next.Record); err != nil {
			r.fail(e, key, err)
			return e.broken
		}
	}
	e.seat = next
	return nil
}

// keep makes room for the service's first record. An entry that was forgotten
// in the meantime may have a successor, and keeps nothing.
func (r *Register) keep(e *entry, key serviceKey) error {
	s := &r.services
	s.Lock()
	defer s.Unlock()
	switch {
	case e.slots != nil:
		return nil
	case s.byKey[key] != e:
		return fmt.Errorf("%w: more than %d services without a record are asked about at once; hint: try again", ErrFull, r.max)
	case len(s.byKey)-len(s.met) >= r.max:
		return fmt.Errorf("%w: the witness keeps %d services and takes no more; hint: remove the record of one that is gone, or use another witness",
			ErrFull, r.max)
	}
	s.met = slices.DeleteFunc(s.met, func(k serviceKey) bool { return k == key })
	return nil
}

// store makes the record durable.
func (r *Register) store(e *entry, key serviceKey, record Record) (err error) {
	payload := appendRecordFile(nil, key, record)
	if e.slots == nil {
		e.slots, err = createSlots(r.dir, key.fileName(), recordKind, 0, payload)
		return err
	}
	return e.slots.store(payload)
}

func (r *Register) report(key serviceKey, q *Request, a *Answer) {
	log := r.log.With("cluster", key.cluster, "service", key.service, "from", q.From, "operator", q.Operator)
	switch {
	case a.Granted:
		log.Info("granted", "replaces", q.Replaces, "epoch", a.Record.Epoch, "holder", a.Record.Holder, "mode", a.Record.Mode)
	case a.Void || a.Wait > 0: // the node asks again until that is over
		log.Debug("not granted yet", "reason", a.Reason)
	default:
		log.Info("refused", "reason", a.Reason)
	}
}

// Len is the number of services that have a record, unusable ones included.
func (r *Register) Len() int {
	r.services.Lock()
	defer r.services.Unlock()
	return len(r.services.byKey) - len(r.services.met)
}

// Close closes the records. No call may be under way or follow.
func (r *Register) Close() error {
	r.services.Lock()
	defer r.services.Unlock()
	var errs []error
	for _, e := range r.services.byKey {
		if e.slots != nil {
			errs = append(errs, e.slots.close())
		}
	}
	return errors.Join(errs...)
}
