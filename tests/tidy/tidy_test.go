// SPDX-License-Identifier: Apache-2.0

package tidy

import (
	"strings"
	"testing"
)

// The rules themselves are tested here: each finds what it is for, and lets
// the good form pass.
func TestRules(t *testing.T) {
	const head = "// SPDX-License-Identifier: Apache-2.0\n\n"
	for _, test := range []struct {
		name, path, text string
		rule             func(source) []string
		found            int
	}{
		{"formatted", "nbd/a.go", head + "package nbd\n", unformatted, 0},
		{"unformatted", "nbd/a.go", head + "package  nbd\n", unformatted, 1},
		{"licensed", "nbd/a.go", head + "package nbd\n", unlicensed, 0},
		{"unlicensed", "nbd/a.go", "package nbd\n", unlicensed, 1},
		{"licensed script", "tests/a", "#!/bin/sh\n# SPDX-License-Identifier: Apache-2.0\n", unlicensed, 0},
		{"unlicensed script", "tests/a", "#!/bin/sh\necho\n", unlicensed, 1},
		{"sleep in a test", "nbd/a_test.go", head + "package nbd\nimport \"time\"\nfunc f() { time.Sleep(1); time.Sleep(2) }\n", sleeps, 2},
		{"renamed sleep", "nbd/a_test.go", head + "package nbd\nimport x \"time\"\nfunc f() { x.Sleep(1) }\n", sleeps, 1},
		{"other sleep", "nbd/a_test.go", head + "package nbd\nfunc f() { clock.Sleep(1) }\n", sleeps, 0},
		{"clock in a core", "mirror/a.go", head + "package mirror\nimport \"time\"\nvar t = time.Now()\n", clocks, 1},
		{"clock in a shell", "nbd/a.go", head + "package nbd\nimport (\"net\"; \"time\")\nvar t = time.Now()\n", clocks, 0},
		{"clock elsewhere", "internal/loop/a.go", head + "package loop\nimport \"time\"\nvar t = time.Now()\n", clocks, 0},
		{"duration in a core", "mirror/a.go", head + "package mirror\nimport \"time\"\nvar t = time.Second\n", clocks, 0},
		{"background", "internal/node/a.go", head + "package node\nimport \"context\"\nvar c = context.Background()\n", backgrounds, 1},
		{"background in cmd", "cmd/twinbd/a.go", head + "package main\nimport \"context\"\nvar c = context.Background()\n", backgrounds, 0},
		{"open end", "nbd/a.go", head + "package nbd\n// TO" + "DO: all of it\n", unfinished, 1},
		{"open end in a string", "nbd/a.go", head + "package nbd\nconst s = \"TO" + "DO\"\n", unfinished, 0},
		{"documented", "nbd/doc.go", head + "// Package nbd is.\npackage nbd\n", oneUndocumented, 0},
		{"undocumented", "nbd/doc.go", head + "package nbd\n", oneUndocumented, 1},
		{"licence is no comment", "nbd/doc.go", strings.TrimSpace(head) + "\npackage nbd\n", oneUndocumented, 1},
		{"creeping function", "nbd/a.go", head + "package nbd\nfunc f() {\n" + strings.Repeat("f()\n", 99) + "}\n", creeping, 1},
		{"function at the limit", "nbd/a.go", head + "package nbd\nfunc f() {\n" + strings.Repeat("f()\n", 98) + "}\n", creeping, 0},
		{"long function", "nbd/a.go", head + "package nbd\nfunc f() {\n" + strings.Repeat("f()\n", 198) + "}\n", creeping, 0},
	} {
		s, err := parse(test.path, []byte(test.text))
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		if got := test.rule(s); len(got) != test.found {
			t.Errorf("%s: found %q, want %d", test.name, got, test.found)
		}
	}
}

func oneUndocumented(s source) []string { return undocumented([]source{s}) }

func creeping(s source) (found []string) {
	for _, l := range long(s) {
		if l.creeps {
			found = append(found, l.String())
		}
	}
	return found
}

func TestRooms(t *testing.T) {
	for _, test := range []struct {
		path, dep string
		allowed   bool
	}{
		{"nbd", "internal/block", true},
		{"nbd/nbdtest", "nbd", true},
		{"nbd", "internal/loop", false},
		{"nbd", "mirror", false},
		{"mirror", "bitmap", true},
		{"mirror", "nbd", false},
		{"bitmap", "mirror", false},
		{"internal/block", "nbd", false},
		{"internal/block/blocktest", "internal/block", true},
		{"internal/node", "mirror", true},
		{"internal/node", "cmd/twinbd", false},
		{"cmd/twinbd", "internal/node", true},
		{"unheard", "internal/block", false},
	} {
		found := intrusions(pkg{module + "/" + test.path, []string{"fmt", module + "/" + test.dep}})
		if (len(found) == 0) != test.allowed {
			t.Errorf("%s imports %s: %q, want allowed %v", test.path, test.dep, found, test.allowed)
		}
	}
}

func TestUnexplained(t *testing.T) {
	gomod := `{"Require": [{"Path": "github.com/a/b"}, {"Path": "golang.org/x/c"}, {"Path": "github.com/d/e", "Indirect": true}]}`
	missing, err := unexplained([]byte(gomod), "| a/b | for this |")
	if err != nil || len(missing) != 1 || missing[0] != "golang.org/x/c" {
		t.Errorf("missing %q, %v; want golang.org/x/c", missing, err)
	}
}
