// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"math/rand/v2"
	"slices"
	"strings"
)

// Bounds of what is made.
const (
	pageSize     = 4096
	largest      = 1 << 20   // a file
	longest      = 128 << 10 // one operation
	farthest     = 256 << 10 // behind the end of a file, where a write may begin
	historyLimit = 8         // operations that a failure shows
)

var names = []string{"a", "b", "c", "d", "e", "f", "g", "h"}

// model is what the files must hold. It chooses what is done next, from the seed and
// from what they hold, and from nothing else.
type model struct {
	random *rand.Rand
	number int // operations done
	files  map[string][]byte
	past   []operation
}

func newModel(seed uint64) *model {
	return &model{random: rand.New(rand.NewPCG(seed, seed)), files: make(map[string][]byte)}
}

// next does the next operation on the model, and returns it.
func (m *model) next() operation {
	m.number++
	o := m.choose()
	m.apply(o)
	m.past = append(m.past, o)
	return o
}

func (m *model) choose() operation {
	o := operation{number: m.number, kind: m.chooseKind(), name: names[m.random.IntN(len(names))]}
	content, there := m.files[o.name]
	size := int64(len(content))
	switch {
	case kinds[o.kind].old && !there:
		o.kind = write
	case size == 0 && (o.kind == store || o.kind == storeSynced || o.kind == readMapped):
		o.kind = write // there is nothing to map
	case size == largest && o.kind == extend:
		o.kind = resize
	}
	switch o.kind {
	case write, punch, zero:
		o.offset = m.align(m.below(min(size+farthest, largest)))
		o.length = min(m.length(), largest-o.offset)
	case writeDirect, readDirect:
		o.offset = m.below(min(size+farthest, largest)) &^ (pageSize - 1)
		o.length = min((m.length()+pageSize-1)&^(pageSize-1), largest-o.offset)
	case extend:
		o.offset = size
		o.length = min(m.length(), largest-size)
	case store, storeSynced, readMapped:
		o.offset = m.align(m.below(size))
		o.length = min(m.length(), size-o.offset)
	case read:
		o.offset = m.below(size + 1)
		o.length = m.length()
	case resize:
		o.length = m.newSize(size)
	case syncDirectory, compare:
		o.name = ""
	case rename:
		for o.to = o.name; o.to == o.name; {
			o.to = names[m.random.IntN(len(names))]
		}
	}
	return o
}

func (m *model) chooseKind() kind {
	sum := 0
	for _, k := range kinds {
		sum += k.weight
	}
	at := m.random.IntN(sum)
	for i, k := range kinds {
		if at -= k.weight; at < 0 {
			return kind(i)
		}
	}
	panic("unreachable")
}

func (m *model) below(n int64) int64 { return m.random.Int64N(n) }

// length is of any order of magnitude, and at least 1.
func (m *model) length() int64 { return 1 + m.below(1<<(3+m.below(15))) }

// align moves some places to the beginning of their page.
func (m *model) align(offset int64) int64 {
	if m.below(3) == 0 {
		return offset &^ (pageSize - 1)
	}
	return offset
}

// newSize is smaller as often as it is larger.
func (m *model) newSize(size int64) int64 {
	if m.below(2) == 0 {
		return m.align(m.below(size + 1))
	}
	return min(size+m.below(farthest), largest)
}

func (m *model) apply(o operation) {
	switch o.kind {
	case write, writeDirect, extend, store, storeSynced:
		m.grow(o.name, o.offset+o.length)
		fill(m.files[o.name][o.offset:][:o.length], o.offset, o.number)
	case zero:
		m.grow(o.name, o.offset+o.length)
		m.clear(o)
	case punch:
		m.clear(o)
	case resize:
		m.grow(o.name, o.length)
		m.files[o.name] = m.files[o.name][:o.length]
	case rename:
		m.files[o.to] = m.files[o.name]
		delete(m.files, o.name)
	case remove:
		delete(m.files, o.name)
	}
}

// grow makes a file at least as long as that; what is new is zero.
func (m *model) grow(name string, size int64) {
	content := m.files[name]
	if more := size - int64(len(content)); more > 0 {
		content = append(content, make([]byte, more)...)
	}
	m.files[name] = content
}

// clear makes a range zero, as far as the file goes.
func (m *model) clear(o operation) {
	content := m.files[o.name]
	size := int64(len(content))
	clear(content[min(o.offset, size):min(o.offset+o.length, size)])
}

// history is the last operations on a file, under whatever name, a line for each.
func (m *model) history(name string) string {
	var lines []string
	for i := len(m.past) - 1; name != "" && i >= 0 && len(lines) < historyLimit; i-- {
		o := m.past[i]
		if o.name != name && o.to != name {
			continue
		}
		lines = append(lines, "  "+o.String())
		if o.kind == rename {
			name = o.name
		}
	}
	slices.Reverse(lines)
	return strings.Join(lines, "\n")
}
