// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
)

// fuzzer does what the model chooses to files, and compares.
type fuzzer struct {
	seed  uint64
	model *model
	files *directory
}

func newFuzzer(dir string, seed uint64) *fuzzer {
	return &fuzzer{seed, newModel(seed), newDirectory(dir)}
}

// run does so many operations, or fewer when there is a file that ends it. In the end
// everything is durable, and was compared.
func (f *fuzzer) run(ops int, until string) error {
	if err := os.MkdirAll(f.files.path, 0o700); err != nil {
		return err
	}
	if err := f.compare(); err != nil { // nothing may be there
		return err
	}
	for f.model.number < ops && !exists(until) {
		if err := f.step(); err != nil {
			return err
		}
	}
	if err := f.files.forget(); err != nil {
		return f.failure(err, "")
	}
	return f.compare()
}

func (f *fuzzer) step() error {
	o := f.model.next()
	err := f.files.do(o, f.model.files[o.name])
	if o.kind == compare {
		err = errors.Join(f.files.forget(), f.compareFiles())
	}
	if err != nil {
		return f.failure(err, o.name)
	}
	return nil
}

// check compares the files with what so many operations leave.
func (f *fuzzer) check(ops int) error {
	for f.model.number < ops {
		f.model.next()
	}
	return f.compare()
}

func exists(path string) bool {
	if path == "" {
		return false
	}
	_, err := os.Stat(path)
	return err == nil
}

func (f *fuzzer) compare() error {
	if err := f.compareFiles(); err != nil {
		return f.failure(err, "")
	}
	return nil
}

// compareFiles holds that there are the files of the model, and no others, with what
// they must hold.
func (f *fuzzer) compareFiles() error {
	entries, err := os.ReadDir(f.files.path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, ok := f.model.files[e.Name()]; !ok {
			return &mismatch{e.Name(), "is there, and must not be"}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.model.files)) {
		got, err := os.ReadFile(f.files.at(name))
		if errors.Is(err, os.ErrNotExist) {
			return &mismatch{name, "is not there"}
		}
		if err != nil {
			return err
		}
		if err := difference(name, 0, got, f.model.files[name]); err != nil {
			return err
		}
	}
	return nil
}

// failure is what is printed: all that it takes to see it again. It tells of the file
// that is wrong, or else of the one that was in hand.
func (f *fuzzer) failure(err error, name string) error {
	if m, ok := errors.AsType[*mismatch](err); ok {
		name = m.name
	}
	text := fmt.Sprintf("seed %d, after %d operations: %v", f.seed, f.model.number, err)
	if history := f.model.history(name); history != "" {
		text += "\nthe last operations on " + name + ":\n" + history
	}
	return errors.New(text)
}

// mismatch is a file that is not as it must be.
type mismatch struct{ name, what string }

func (m *mismatch) Error() string { return m.name + " " + m.what }

// difference compares what was read from a place of a file with what must be there.
func difference(name string, offset int64, got, want []byte) error {
	if bytes.Equal(got, want) {
		return nil
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	if at == len(got) || at == len(want) {
		return &mismatch{name, fmt.Sprintf("ends at %d, and must at %d", offset+int64(len(got)), offset+int64(len(want)))}
	}
	return &mismatch{name, fmt.Sprintf("differs at %d: it has %s, and must have %s", offset+int64(at), origin(got, offset, at), origin(want, offset, at))}
}
