// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"slices"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/internal/block"
)

// metaWriter makes metadata durable, in numbered transactions: some writes,
// then one flush. One transaction is under way at a time, and collects for the
// next, so many waiters share a flush. What is in one transaction has no order:
// what must come after something else waits for the transaction that holds it.
//
// Headers and intents are written to alternating places (rule 13), so a
// transaction that is cut leaves the older ones, which mark more.
//
// A header stands in both places before anything relies on it: where the newer
// one rots later, what counts then says the same. Else one bad sector would
// bring back an older state that allows more: consistent, not failed, of the
// generation before the one in which this node was alone.
type metaWriter struct {
	engine *Engine
	layout bitmap.Layout
	salt   uint64

	collecting uint64 // the transaction that takes what is wanted now
	done       uint64 // every one up to here is durable
	busy       bool
	failed     bool // a metadata write or flush failed: no more is tried

	header     bool // wanted
	headerOpen bool // in the transaction under way
	second     bool // and its second copy is still to be written, when the first is durable
	intents    bool // wanted
	after      []afterMeta
	sweep      sweep

	headerSequence, intentsSequence      uint64
	headerImage, intentsImage, pageImage []byte
	stored                               bitmap.Header // as the transaction under way writes it

	writes []block.Task // of the transaction under way
	open   int          // of these, not yet returned
	flush  block.Task
	err    error
}

type afterMeta struct {
	transaction uint64
	then        func()
}

// sweep writes all pages of dirty bits that changed, in ascending order, over
// one or more transactions. What changes behind it is for the next sweep.
type sweep struct {
	wanted bool
	next   []func() // wait for the next sweep
	active bool
	at     int      // page at which the one under way goes on
	then   []func() // wait for it
	ends   bool     // with the transaction under way
	saving []int    // pages in the transaction under way
}

// maxPages bounds the pages of one transaction: 512 KiB.
const maxPages = 128

func (m *metaWriter) init(e *Engine, md *bitmap.Metadata) {
	if md.IntentsLost {
		bug("metadata of %s was not repaired after its intents were lost", md.Header.Volume)
	}
	m.engine, m.layout, m.salt, m.collecting = e, md.Layout, md.Header.Salt, 1
	m.headerSequence, m.intentsSequence = md.Sequence, md.IntentsSequence
	m.headerImage = make([]byte, bitmap.HeaderSize)
	m.intentsImage = make([]byte, m.layout.IntentsSize())
	m.pageImage = make([]byte, maxPages*bitmap.PageSize)
	m.writes = make([]block.Task, 0, maxPages+2)
	m.header = !md.HeaderTwice // before anything relies on the only copy
}

// wantIntents has the set of intents written; it returns the transaction in
// which they will be durable.
func (m *metaWriter) wantIntents() uint64 {
	m.intents = true
	return m.collecting
}

// wantHeader has the header written. then is called when it is durable; it may
// be nil.
func (m *metaWriter) wantHeader(then func()) {
	m.header = true
	if then != nil {
		m.after = append(m.after, afterMeta{m.collecting, then})
	}
}

// headerPending reports whether the header is not on stable storage as it is
// here, and can still get there.
func (m *metaWriter) headerPending() bool {
	return (m.header || m.headerOpen) && m.engine.local == diskGood
}

// wantPages has every page of dirty bits written that has changed until now.
// then is called when they are durable; it may be nil.
func (m *metaWriter) wantPages(then func()) {
	m.sweep.wanted = true
	if then != nil {
		m.sweep.next = append(m.sweep.next, then)
	}
}

// bitsDurable reports whether the dirty bits of a region are as they are on
// stable storage; if not, they are wanted.
func (m *metaWriter) bitsDurable(region uint32) bool {
	run := m.layout.Region(region)
	for p := bitmap.PageOf(run.First); p <= bitmap.PageOf(run.First+run.Count-1); p++ {
		if !m.engine.dirty.Saved(p) {
			m.sweep.wanted = true
			return false
		}
		if slices.Contains(m.sweep.saving, p) {
			return false
		}
	}
	return true
}

// start begins the collected transaction unless one is under way.
func (m *metaWriter) start() {
	if m.busy || m.failed || !m.header && !m.intents && !m.sweep.wanted && !m.sweep.active {
		return
	}
	m.busy, m.err, m.writes = true, nil, m.writes[:0]
	m.collecting++
	if m.header {
		m.writeHeader()
	}
	if m.intents {
		m.writeIntents()
	}
	m.writePages()
	m.open = len(m.writes)
	for i := range m.writes {
		m.engine.do(&m.writes[i])
	}
	if m.open == 0 {
		m.sync()
	}
}

func (m *metaWriter) writeHeader() {
	m.header, m.headerOpen, m.second = false, true, true
	m.stored = m.engine.header
	m.writeCopy()
}

// writeCopy puts the header into the place that is due.
func (m *metaWriter) writeCopy() {
	m.headerSequence++
	if err := m.stored.Encode(m.headerImage, m.headerSequence); err != nil {
		bug("header cannot be stored: %v", err)
	}
	m.write(bitmap.HeaderOffset(m.headerSequence), m.headerImage)
}

// writeSecond is the end of a transaction with a header: the first copy is
// durable and the older one may go.
func (m *metaWriter) writeSecond() {
	m.second, m.writes = false, m.writes[:0]
	m.writeCopy()
	m.open = len(m.writes)
	m.engine.do(&m.writes[0])
}

func (m *metaWriter) writeIntents() {
	m.intents = false
	m.intentsSequence++
	if mutated("intents alternate") {
		m.intentsSequence++
	}
	image := m.engine.marks.intents.Encode(m.intentsImage, m.salt, m.intentsSequence)
	m.write(m.layout.IntentsOffset(m.intentsSequence), image)
}

// writePages adds the next pages of the sweep to the transaction.
func (m *metaWriter) writePages() {
	s, bits := &m.sweep, m.engine.dirty
	s.saving = s.saving[:0]
	if s.wanted && !s.active {
		s.wanted, s.active, s.at = false, true, 0
		s.then, s.next = s.next, nil
	}
	if !s.active {
		return
	}
	page, ok := bits.NextUnsaved(s.at)
	for n := 0; ok && n < maxPages; n++ {
		image := m.pageImage[n*bitmap.PageSize:][:bitmap.PageSize]
		bits.EncodePage(page, m.salt, image)
		m.write(m.layout.PageOffset(page), image)
		s.saving, s.at = append(s.saving, page), page+1
		page, ok = bits.NextUnsaved(s.at)
	}
	s.ends = !ok
}

func (m *metaWriter) write(offset int64, b []byte) {
	m.writes = append(m.writes, block.Task{
		Target: block.Metadata, Op: block.Write, Offset: offset, Length: int64(len(b)), Data: b, Engine: m,
	})
}

func (m *metaWriter) sync() {
	m.flush = block.Task{Target: block.Metadata, Op: block.Flush, Engine: m}
	m.engine.do(&m.flush)
}

// finished takes a write or the flush back.
func (m *metaWriter) finished(t *block.Task) {
	if t.Err != nil && m.err == nil {
		m.err = t.Err
	}
	switch {
	case t.Op == block.Flush && m.second && m.err == nil:
		m.writeSecond()
	case t.Op == block.Flush:
		m.second = false
		m.finish()
	case m.open == 1:
		m.open = 0
		m.sync()
	default:
		m.open--
	}
}

func (m *metaWriter) finish() {
	e := m.engine
	m.busy = false
	if m.err != nil && !mutated("failed metadata is a failed disk") {
		// A failed metadata flush is a failed disk (rule 8): what must be
		// durable first never is, so what waits for it waits for the peer.
		m.failed = true
		e.localFailed("write metadata", m.err)
		return
	}
	m.done, m.headerOpen = m.collecting-1, false
	m.sweep.saving = m.sweep.saving[:0]
	e.intentsDurable()
	for len(m.after) > 0 && m.after[0].transaction <= m.done {
		then := m.after[0].then
		m.after = m.after[1:]
		then()
	}
	if m.sweep.ends {
		then := m.sweep.then
		m.sweep.active, m.sweep.ends, m.sweep.then = false, false, nil
		for _, f := range then {
			f()
		}
	}
	e.retryIntents()
}
