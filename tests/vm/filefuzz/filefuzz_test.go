// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const ops = 400

// ran is a directory in which a fuzzer has run, and that fuzzer.
func ran(t *testing.T, seed uint64) (f *fuzzer, dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "files")
	f = newFuzzer(dir, seed)
	if err := f.run(ops, ""); err != nil {
		t.Fatal(err)
	}
	return f, dir
}

// What a fresh seed does to this machine's files is what the model says, also when it
// is replayed later.
func TestFuzz(t *testing.T) {
	seed := rand.Uint64()
	f, dir := ran(t, seed)
	if err := newFuzzer(dir, seed).check(ops); err != nil {
		t.Error(err)
	}
	if err := newFuzzer(dir, seed+1).check(ops); err == nil {
		t.Error("another seed leaves the same")
	}
	if f.model.number != ops {
		t.Errorf("%d operations were done", f.model.number)
	}
}

// Each kind of operation comes, and they make files of all lengths.
func TestVariety(t *testing.T) {
	m := newModel(1)
	seen := make(map[kind]int)
	longestFile := 0
	for range 5000 {
		seen[m.next().kind]++
		for _, content := range m.files {
			longestFile = max(longestFile, len(content))
		}
	}
	for k := range kinds {
		if seen[kind(k)] == 0 {
			t.Errorf("%q never comes", kinds[k].name)
		}
	}
	if longestFile != largest {
		t.Errorf("the longest file has %d bytes", longestFile)
	}
}

// A fuzzer ends when a file is there, here one that it makes itself, and knows after how
// many operations.
func TestUntil(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "files")
	f := newFuzzer(dir, 1)
	if err := f.run(math.MaxInt, filepath.Join(dir, "c")); err != nil {
		t.Fatal(err)
	}
	if err := newFuzzer(dir, 1).check(f.model.number); err != nil {
		t.Error(err)
	}
}

// Whatever becomes of the files is found, and told.
func TestCheckBites(t *testing.T) {
	f, dir := ran(t, 7)
	names := slices.SortedFunc(maps.Keys(f.model.files), func(a, b string) int {
		return len(f.model.files[b]) - len(f.model.files[a])
	})
	name, other := names[0], names[1] // the longest
	content := f.model.files[name]
	middle := len(content) / 2
	at := filepath.Join(dir, name)
	put := func(content []byte) error { return os.WriteFile(at, content, 0o600) }
	change := func(change func(b []byte)) func() error {
		return func() error {
			b := bytes.Clone(content)
			change(b)
			return put(b)
		}
	}
	for what, test := range map[string]struct {
		damage func() error
		want   string // besides the seed
	}{
		"a flipped byte":       {change(func(b []byte) { b[middle] ^= 1 }), fmt.Sprintf("%s differs at %d: ", name, middle)},
		"a stale word":         {change(func(b []byte) { fill(b[middle&^7:][:8], int64(middle&^7), 3) }), fmt.Sprintf("it has what operation 3 writes at %d ", middle&^7)},
		"another block":        {change(func(b []byte) { fill(b[:8], 4096, 1000) }), "it has what operation 1000 writes at 4096 "},
		"a lost tail":          {func() error { return put(content[:len(content)-1]) }, fmt.Sprintf("%s ends at %d, and must at %d", name, len(content)-1, len(content))},
		"a longer tail":        {func() error { return put(append(bytes.Clone(content), 0)) }, fmt.Sprintf("%s ends at %d, and must at %d", name, len(content)+1, len(content))},
		"a lost rename":        {func() error { return os.Rename(at, filepath.Join(dir, "x")) }, "x is there, and must not be"},
		"a lost file":          {func() error { return os.Remove(at) }, name + " is not there"},
		"a rename over a file": {func() error { return os.Rename(filepath.Join(dir, other), at) }, ""},
	} {
		err := test.damage()
		if err != nil {
			t.Fatal(err)
		}
		err = newFuzzer(dir, 7).check(ops)
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "seed 7, after 400 operations") {
			t.Errorf("%s: %v, want %q", what, err, test.want)
		}
		_ = os.Remove(filepath.Join(dir, "x"))
		for _, n := range []string{name, other} {
			if err := os.WriteFile(filepath.Join(dir, n), f.model.files[n], 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := newFuzzer(dir, 7).check(ops); err != nil {
		t.Errorf("when everything is as it was: %v", err)
	}
}

// What is wrong is found while it runs too, and the failure tells the history.
func TestRunBites(t *testing.T) {
	f, dir := ran(t, 11)
	for name := range f.model.files {
		if err := os.Truncate(filepath.Join(dir, name), largest+1); err != nil {
			t.Fatal(err)
		}
	}
	for range ops {
		err := f.step()
		if err == nil {
			continue
		}
		if text := err.Error(); !strings.Contains(text, "seed 11, after ") || !strings.Contains(text, "the last operations on ") {
			t.Errorf("it says: %s", text)
		}
		return
	}
	t.Error("what is wrong was not found in 400 operations")
}

func TestHistory(t *testing.T) {
	m := newModel(1)
	m.past = []operation{
		{1, write, "a", "", 0, 10}, {2, write, "b", "", 0, 10}, {3, rename, "a", "b", 0, 0}, {4, resize, "b", "", 0, 5}, {5, remove, "c", "", 0, 0},
	}
	want := "  1: write a 0+10\n  3: rename a to b\n  4: truncate b to 5"
	if got := m.history("b"); got != want {
		t.Errorf("got\n%s", got)
	}
}

// What is written at a place is the same however it is cut.
func TestFill(t *testing.T) {
	whole := make([]byte, 64)
	fill(whole, 4096, 5)
	for from := range 20 {
		for to := from; to < 40; to++ {
			part := make([]byte, to-from)
			fill(part, 4096+int64(from), 5)
			if !bytes.Equal(part, whole[from:to]) {
				t.Fatalf("%d to %d: %x", from, to, part)
			}
		}
	}
	if got := origin(whole[3:], 4099, 10); !strings.HasPrefix(got, "what operation 5 writes at 4104 ") {
		t.Error(got)
	}
	if got := origin(whole[3:], 4099, 1); !strings.HasPrefix(got, "byte ") {
		t.Error(got)
	}
}
