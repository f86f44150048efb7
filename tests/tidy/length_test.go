// SPDX-License-Identifier: Apache-2.0

package tidy

import (
	"fmt"
	"go/ast"
	"testing"
)

// The ratchet: a function or a file that creeps over its limit by a few lines
// is an error, for then it is easily cut. One that is far longer has a reason
// and is only listed, so that nobody takes a good long table apart for a test.
const (
	functionLimit, functionCreep = 100, 5
	fileLimit, fileCreep         = 500, 20
)

type length struct {
	what         string
	lines, limit int
	creeps       bool
}

func (l length) String() string {
	return fmt.Sprintf("%4d lines (limit %d): %s", l.lines, l.limit, l.what)
}

// long returns what is over its limit in a file. Tests may be as long as
// their tables.
func long(s source) (found []length) {
	if s.file == nil || s.isTest() {
		return nil
	}
	add := func(what string, lines, limit, creep int) {
		if lines > limit {
			found = append(found, length{what, lines, limit, lines <= limit+creep})
		}
	}
	add(s.path, s.set.File(s.file.Pos()).LineCount(), fileLimit, fileCreep)
	for _, decl := range s.file.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok {
			lines := s.set.Position(f.End()).Line - s.set.Position(f.Pos()).Line + 1
			add(s.at(f.Pos())+": "+f.Name.Name, lines, functionLimit, functionCreep)
		}
	}
	return found
}

func TestLengths(t *testing.T) {
	each(t, func(s source) (errors []string) {
		for _, l := range long(s) {
			if l.creeps {
				errors = append(errors, l.String()+": cut it, it is only just too long")
			} else {
				t.Log(l)
			}
		}
		return errors
	})
}
