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
	"strings"
	"sync"
	"sync/atomic"
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
	MaxServices int          // 0: DefaultMaxServices

	// Random names the run of the register; nil: crypto/rand. A seeded one
	// makes a simulation repeatable.
	Random io.Reader
}

// Register keeps the records of many services of many clusters, one file each.
// An answer is given only about what is durable. Calls may overlap.
type Register struct {
	dir Directory
	log *slog.Logger
	max int

	// The numbers of this run's answers are (first, serial]. The run begins
	// at a random place, so that a number of another run is not among them.
	first  uint64
	serial atomic.Uint64

	services struct {
		sync.Mutex
		byKey map[serviceKey]*entry
	}
}

// entry is one service. Its lock is held over the file's writes: nobody is told
// of a record that is not durable yet.
type entry struct {
	sync.Mutex
	slots  *slotFile // nil before the first record
	record Record
	broken error // wraps ErrUnusable; final for this process
}

// OpenRegister opens the records in dir and makes sure that each is durable. A
// damaged file breaks its own service only. The directory stays the caller's.
func OpenRegister(dir Directory, config RegisterConfig) (*Register, error) {
	r := &Register{dir: dir, log: config.Log, max: cmp.Or(config.MaxServices, DefaultMaxServices)}
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
	r.first = binary.BigEndian.Uint64(b[:]) >> 1 // never wraps, never 0 when one is added
	r.serial.Store(r.first)
	return nil
}

// load opens one service's record. What goes wrong is the service's state, not
// the register's.
func (r *Register) load(key serviceKey) *entry {
	e := &entry{}
	slots, payload, damaged, err := openSlots(r.dir, key.fileName(), recordKind)
	if err == nil {
		e.slots = slots
		e.record, err = decodeRecordFile(payload, key)
	}
	if err != nil {
		r.fail(e, key, err)
		return e
	}
	if damaged != nil {
		r.log.Warn("one of two copies of a record was damaged, the other is used",
			"cluster", key.cluster, "service", key.service, "error", damaged)
	}
	return e
}

// fail is the one way in which a service becomes unusable.
func (r *Register) fail(e *entry, key serviceKey, cause error) {
	e.broken = fmt.Errorf("%w: the witness's record of %v is unknown, so it grants nothing: %w; hint: "+
		"restart the witness once the disk is sound; if the file %s is damaged, move it away first and run `twinbd primforce %s` after",
		ErrUnusable, key, cause, key.fileName(), key.service)
	r.log.Error("a record is unusable", "cluster", key.cluster, "service", key.service, "error", cause)
}

// Read answers a query with the record as it is: an empty one for a service
// that the witness does not know.
func (r *Register) Read(q Query) (Answer, error) {
	if err := q.check(); err != nil {
		return Answer{}, fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	var record Record
	if e := r.find(serviceKey{q.Cluster, q.Service}); e != nil {
		e.Lock()
		defer e.Unlock()
		if e.broken != nil {
			return Answer{}, e.broken
		}
		record = e.record
	}
	return Answer{Record: record, Serial: r.serial.Add(1)}, nil
}

// Change decides on a request (see Apply), and answers when the outcome is
// durable.
func (r *Register) Change(q Request) (Answer, error) {
	if err := q.check(); err != nil {
		return Answer{}, fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	key := serviceKey{q.Cluster, q.Service}
	e := r.find(key)
	if e == nil {
		// Only a granted request makes a service, so that nobody fills the
		// register by asking.
		if answer := r.judge(Record{}, q); !answer.Granted {
			return r.number(answer), nil
		}
		var err error
		if e, err = r.make(key); err != nil {
			return Answer{}, err
		}
	}
	e.Lock()
	defer e.Unlock()
	if e.broken != nil {
		return Answer{}, e.broken
	}
	answer := r.judge(e.record, q)
	if answer.Granted && answer.Record != e.record {
		if err := r.store(e, key, answer.Record); err != nil {
			r.fail(e, key, err)
			return Answer{}, e.broken
		}
	}
	r.report(key, &q, answer)
	return r.number(answer), nil
}

// judge is Apply, and voids what would change the record on the word of an
// answer that this run never gave.
func (r *Register) judge(record Record, q Request) Answer {
	next, answer := Apply(record, q)
	if next != record && !r.gave(q.Seen) {
		return Answer{Void: true, Record: record, Reason: fmt.Sprintf(
			"%s names an answer that this run of the witness has not given, so the request may be of any age: it is to ask anew; "+
				"the witness has %v", q.From, record)}
	}
	return answer
}

func (r *Register) gave(serial uint64) bool {
	return serial > r.first && serial <= r.serial.Load()
}

func (r *Register) number(a Answer) Answer {
	a.Serial = r.serial.Add(1)
	return a
}

func (r *Register) find(key serviceKey) *entry {
	r.services.Lock()
	defer r.services.Unlock()
	return r.services.byKey[key]
}

// make returns the service's entry, which another request may have made by now.
func (r *Register) make(key serviceKey) (*entry, error) {
	r.services.Lock()
	defer r.services.Unlock()
	if e := r.services.byKey[key]; e != nil {
		return e, nil
	}
	if len(r.services.byKey) >= r.max {
		return nil, fmt.Errorf("%w: the witness keeps %d services and takes no more; hint: remove the record of one that is gone, or use another witness",
			ErrFull, r.max)
	}
	e := &entry{}
	r.services.byKey[key] = e
	return e, nil
}

// store makes the record durable, then current.
func (r *Register) store(e *entry, key serviceKey, record Record) (err error) {
	payload := appendRecordFile(nil, key, record)
	if e.slots == nil {
		e.slots, err = createSlots(r.dir, key.fileName(), recordKind, 0, payload)
	} else {
		err = e.slots.store(payload)
	}
	if err != nil {
		return err
	}
	e.record = record
	return nil
}

func (r *Register) report(key serviceKey, q *Request, a Answer) {
	log := r.log.With("cluster", key.cluster, "service", key.service, "from", q.From, "operator", q.Operator)
	if a.Granted {
		log.Info("granted", "replaces", q.Replaces, "epoch", a.Record.Epoch, "holder", a.Record.Holder, "mode", a.Record.Mode)
	} else {
		log.Info("refused", "reason", a.Reason)
	}
}

// Len is the number of services that have a record, unusable ones included.
func (r *Register) Len() int {
	r.services.Lock()
	defer r.services.Unlock()
	return len(r.services.byKey)
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
