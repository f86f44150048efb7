// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"encoding/binary"
	"fmt"
)

// kind is what an operation does.
type kind int

const (
	write kind = iota
	writeDirect
	extend
	resize
	store
	storeSynced
	punch
	zero
	rename
	remove
	syncFile
	syncData
	syncDirectory
	read
	readDirect
	readMapped
	compare
)

var kinds = [...]struct {
	name   string
	weight int
	old    bool // needs a file that is there
}{
	write:         {"write", 20, false},
	writeDirect:   {"write past the cache", 8, false},
	extend:        {"append", 8, false},
	resize:        {"truncate", 6, false},
	store:         {"store through a map", 5, true},
	storeSynced:   {"store through a map, msync", 3, true},
	punch:         {"punch", 6, true},
	zero:          {"zero", 4, true},
	rename:        {"rename", 4, true},
	remove:        {"remove", 2, true},
	syncFile:      {"fsync", 2, true},
	syncData:      {"fdatasync", 2, true},
	syncDirectory: {"fsync of the directory", 1, false},
	read:          {"read", 6, true},
	readDirect:    {"read past the cache", 3, true},
	readMapped:    {"read through a map", 3, true},
	compare:       {"compare all, from the disk", 1, false},
}

// operation is one step.
type operation struct {
	number int // from 1 on
	kind   kind
	name   string // "": all files
	to     string // of a rename
	offset int64
	length int64 // of a truncate: the new length
}

func (o operation) String() string {
	text := fmt.Sprintf("%d: %s %s", o.number, kinds[o.kind].name, o.name)
	switch o.kind {
	case rename:
		return text + " to " + o.to
	case resize:
		return fmt.Sprintf("%s to %d", text, o.length)
	case remove, syncFile, syncData:
		return text
	}
	return fmt.Sprintf("%s %d+%d", text, o.offset, o.length)
}

const wordSize = 8

// fill puts into p, which begins at a place of a file, what an operation writes there:
// words of its number and their place.
func fill(p []byte, offset int64, number int) {
	var word [wordSize]byte
	for len(p) > 0 {
		place := offset / wordSize
		value := uint64(number)<<32 | uint64(uint32(place))
		skip := int(offset % wordSize)
		if skip == 0 && len(p) >= wordSize {
			binary.LittleEndian.PutUint64(p, value)
			p, offset = p[wordSize:], offset+wordSize
			continue
		}
		binary.LittleEndian.PutUint64(word[:], value)
		n := copy(p, word[skip:])
		p, offset = p[n:], offset+int64(n)
	}
}

// origin says what the word is that holds a byte of content, which begins at a place of
// a file.
func origin(content []byte, offset int64, at int) string {
	from := at - int((offset+int64(at))%wordSize)
	if from < 0 || from+wordSize > len(content) {
		return fmt.Sprintf("byte %#02x", content[at])
	}
	value := binary.LittleEndian.Uint64(content[from:])
	if value == 0 {
		return "zeroes"
	}
	return fmt.Sprintf("what operation %d writes at %d (%#016x)", value>>32, int64(uint32(value))*wordSize, value)
}
