// SPDX-License-Identifier: Apache-2.0

package bitmap

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

const sector = 512

// torn writes the sectors of w for which keep says so.
func (a *area) torn(w Write, keep func(sector int) bool) {
	for i := 0; i < len(w.Data); i += sector {
		if keep(i / sector) {
			copy(a.data[w.Offset+int64(i):], w.Data[i:i+sector])
		}
	}
}

// facts is what of a loaded area must be old or new.
type facts struct {
	header  Header
	regions string
	pages   []string
}

func factsOf(m *Metadata) facts {
	f := facts{header: m.Header, regions: fmt.Sprint(m.Regions)}
	for page := range m.Bits.Pages() {
		f.pages = append(f.pages, fmt.Sprintf("%x", m.Bits.pageWords(page)))
	}
	return f
}

// checkOneOf fails unless each part of got is in one of the allowed facts, or
// a page is all dirty and reported.
func checkOneOf(t interface {
	Helper()
	Fatalf(string, ...any)
}, m *Metadata, allowed ...facts) {
	t.Helper()
	got := factsOf(m)
	if m.IntentsLost || !slices.ContainsFunc(allowed, func(f facts) bool { return f.regions == got.regions }) {
		t.Fatalf("intents are %s, lost: %v", got.regions, m.IntentsLost)
	}
	if !slices.ContainsFunc(allowed, func(f facts) bool { return f.header == got.header }) {
		t.Fatalf("header is %+v", got.header)
	}
	for page := range got.pages {
		if slices.Contains(m.BadPages, page) {
			if r := m.Bits.PageRun(page); !m.Bits.Full(r.First, r.Count) || m.Bits.Saved(page) {
				t.Fatalf("bad page %d is not all dirty and unsaved", page)
			}
		} else if !slices.ContainsFunc(allowed, func(f facts) bool { return f.pages[page] == got.pages[page] }) {
			t.Fatalf("page %d holds what was never written", page)
		}
	}
}

// TestTornWrites cuts each kind of write after every sector, before every
// sector, and leaves every single sector out.
func TestTornWrites(t *testing.T) {
	h := testHeader()
	l, err := h.Layout()
	if err != nil {
		t.Fatal(err)
	}
	bits := NewBits(h.Size)
	bits.Set(0, 3*PageBlocks/2)
	bits.Clear(50, 9000)
	few, many := NewIntents(l), NewIntents(l)
	few.Add(200)
	for region := range uint32(l.IntentLimit()) {
		many.Add(region * 4)
	}
	next := h
	next.ResyncID, next.State, next.Reason = 99, Inconsistent, ""
	next.Advance(Generation{0x99})
	for name, w := range map[string]Write{
		"page":         pageWrite(l, bits, 0, h.Salt),
		"last page":    pageWrite(l, bits, 2, h.Salt),
		"few intents":  intentsWrite(l, few, h.Salt, 4),
		"many intents": intentsWrite(l, many, h.Salt, 4),
		"header":       headerWrite(t, next, 4),
	} {
		t.Run(name, func(t *testing.T) {
			before := usedArea(t)
			after := before.clone()
			after.write(w)
			old, new := factsOf(before.load(t)), factsOf(after.load(t))
			for cut := range len(w.Data)/sector + 1 {
				for _, keep := range []func(int) bool{
					func(i int) bool { return i < cut },
					func(i int) bool { return i >= cut },
					func(i int) bool { return i != cut },
					func(i int) bool { return i == cut },
				} {
					a := before.clone()
					a.torn(w, keep)
					checkOneOf(t, a.load(t), old, new)
				}
			}
		})
	}
}

// TestFormatInterrupted stops the making of an area, over one that was used,
// after every sector of every write. What is found is the old metadata whole,
// nothing usable, or the new metadata whole.
func TestFormatInterrupted(t *testing.T) {
	h := testHeader()
	h.Salt, h.Volume = 1, "other"
	writes, err := Format(h)
	if err != nil {
		t.Fatal(err)
	}
	before := usedArea(t)
	old := before.load(t)
	earlier := before.clone() // what the older header says: a wiped newer one is noticed by the peer
	clear(earlier.data[HeaderOffset(3):][:HeaderSize])
	done := before.clone()
	var seen struct{ old, none, new bool }
	for w := range writes {
		for cut := range len(w.Data) / sector {
			a := done.clone()
			a.torn(w, func(i int) bool { return i < cut })
			m, err := Load(a, int64(len(a.data)))
			switch {
			case err != nil:
				seen.none = true
			case m.Header.Salt == old.Header.Salt:
				seen.old = true
				checkOneOf(t, m, factsOf(old), factsOf(earlier.load(t)))
			default:
				seen.new = true
				if m.Header != h || m.Bits.Count() != 0 || len(m.Regions) != 0 || m.IntentsLost || m.BadPages != nil {
					t.Fatalf("offset %d, sector %d: half formatted and taken", w.Offset, cut)
				}
			}
		}
		done.write(w)
	}
	if !seen.old || !seen.none || !seen.new {
		t.Errorf("old, none, new were seen: %v", seen)
	}
	if m := done.load(t); m.Header != h {
		t.Errorf("formatted header is %+v", m.Header)
	}
}

// TestFormatIsInDurableOrder: between two syncs the writes may reach the disk
// in any order, so no header may share such a group with pages or intents.
func TestFormatIsInDurableOrder(t *testing.T) {
	h := testHeader()
	h.Size = 300 << 30 // several writes of pages
	writes, err := Format(h)
	if err != nil {
		t.Fatal(err)
	}
	l, err := h.Layout()
	if err != nil {
		t.Fatal(err)
	}
	var groups []string
	group := ""
	end := l.PageOffset(0)
	for w := range writes {
		switch {
		case w.Offset < l.IntentsOffset(0) && isZero(w.Data):
			group += "wipe "
		case w.Offset < l.IntentsOffset(0):
			group += "header "
		case w.Offset < l.PageOffset(0):
			group += "intents "
		default:
			if w.Offset != end || len(w.Data) > formatChunk {
				t.Errorf("pages %d+%d follow %d", w.Offset, len(w.Data), end)
			}
			end = w.Offset + int64(len(w.Data))
			if group == "intents intents " {
				group += "pages "
			}
		}
		if w.Sync {
			groups, group = append(groups, group), ""
		}
	}
	if want := []string{"wipe wipe ", "intents intents pages ", "header ", "header "}; !slices.Equal(groups, want) || group != "" {
		t.Errorf("groups are %q and %q, want %q", groups, group, want)
	}
	if end != l.Bytes() {
		t.Errorf("pages end at %d, the area at %d", end, l.Bytes())
	}
	for range writes { // stopping early must not go on
		break
	}
}

// crasher is a metadata area with writes that are not durable yet: an engine
// that changes everything at random, but keeps one slot of a kind in flight.
type crasher struct {
	t        *rapid.T
	durable  *area
	pending  []Write
	header   Header
	bits     *Bits
	intents  *Intents
	layout   Layout
	sequence [2]uint64 // of header and intents
	busy     [2]bool   // a slot of header or intents is pending
	history  []facts   // each state that was encoded since all was durable
}

func (c *crasher) put(w Write) {
	c.pending = append(c.pending, w)
	written := c.durable.clone()
	for _, p := range c.pending {
		written.write(p)
	}
	m, err := Load(written, int64(len(written.data)))
	if err != nil {
		c.t.Fatal(err)
	}
	c.history = append(c.history, factsOf(m))
}

func (c *crasher) actions() map[string]func(*rapid.T) {
	run := func(t *rapid.T) (first, count int64) {
		first = rapid.Int64Range(0, c.bits.Blocks()-1).Draw(t, "first")
		return first, rapid.Int64Range(0, min(c.bits.Blocks()-first, 20000)).Draw(t, "count")
	}
	return map[string]func(*rapid.T){
		"set":   func(t *rapid.T) { c.bits.Set(run(t)) },
		"clear": func(t *rapid.T) { c.bits.Clear(run(t)) },
		"save page": func(t *rapid.T) {
			if page, ok := c.bits.NextUnsaved(0); ok {
				c.put(pageWrite(c.layout, c.bits, page, c.header.Salt))
			}
		},
		"intend": func(t *rapid.T) {
			region := rapid.Uint32Range(0, 299).Draw(t, "region")
			if c.intents.Find(region) != nil {
				c.intents.Remove(region)
			} else {
				c.intents.Add(region)
			}
		},
		"save intents": func(t *rapid.T) {
			if !c.busy[1] {
				c.sequence[1]++
				c.busy[1] = true
				c.put(intentsWrite(c.layout, c.intents, c.header.Salt, c.sequence[1]))
			}
		},
		"save header": func(t *rapid.T) {
			if !c.busy[0] {
				c.sequence[0]++
				c.busy[0] = true
				c.header.ResyncID++
				data := make([]byte, HeaderSize)
				if err := c.header.Encode(data, c.sequence[0]); err != nil {
					t.Fatal(err)
				}
				c.put(Write{Offset: HeaderOffset(c.sequence[0]), Data: data})
			}
		},
		"sync": func(t *rapid.T) {
			for _, w := range c.pending {
				c.durable.write(w)
			}
			c.pending, c.busy = nil, [2]bool{}
			c.history = c.history[len(c.history)-1:]
		},
		"crash": func(t *rapid.T) {
			left := c.durable.clone()
			for _, w := range c.pending {
				kept := rapid.Uint64().Draw(t, "sectors")
				left.torn(w, func(i int) bool { return kept>>(i%64)&1 == 1 })
			}
			m, err := Load(left, int64(len(left.data)))
			if err != nil {
				t.Fatal(err)
			}
			checkOneOf(t, m, c.history...)
		},
	}
}

// TestCrashAtAnyMoment: of what is written at random and cut at random, each
// part that is loaded is one that was written and is no older than the last
// sync, or is all dirty.
func TestCrashAtAnyMoment(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		h := testHeader()
		c := &crasher{t: rt, header: h, durable: newArea(t, h), sequence: [2]uint64{FormatSequence, FormatSequence}}
		m := c.durable.load(t)
		c.bits, c.layout, c.intents = m.Bits, m.Layout, NewIntents(m.Layout)
		c.history = []facts{factsOf(m)}
		rt.Repeat(c.actions())
	})
}
