// SPDX-License-Identifier: Apache-2.0

package tidy

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// source is one file of the module.
type source struct {
	path string // from the module's root, with slashes
	text []byte
	set  *token.FileSet
	file *ast.File // nil unless it is Go
}

// root is the module's directory, from this one.
const root = "../.."

// sources reads every Go file and script once for all tests.
var sources = sync.OnceValues(func() ([]source, error) {
	var all []source
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			if name == "testdata" || name == "bin" || name == ".git" {
				return filepath.SkipDir
			}
			return nil
		}
		if !entry.Type().IsRegular() {
			return nil
		}
		s, err := readSource(path)
		if s != nil {
			all = append(all, *s)
		}
		return err
	})
	return all, err
})

// readSource returns nil for what is neither Go nor a script.
func readSource(path string) (*source, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	isGo := strings.HasSuffix(path, ".go")
	if !isGo && !bytes.HasPrefix(text, []byte("#!")) {
		return nil, nil
	}
	short, err := filepath.Rel(root, path)
	if err != nil {
		return nil, err
	}
	s, err := parse(filepath.ToSlash(short), text)
	return &s, err
}

func parse(path string, text []byte) (s source, err error) {
	s = source{path: path, text: text, set: token.NewFileSet()}
	if strings.HasSuffix(path, ".go") {
		s.file, err = parser.ParseFile(s.set, path, text, parser.ParseComments|parser.SkipObjectResolution)
	}
	return s, err
}

// each runs a rule over the module's files and reports what it finds.
func each(t *testing.T, rule func(source) []string) {
	t.Helper()
	all, err := sources()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("only %d files found: the walk is broken", len(all))
	}
	for _, s := range all {
		for _, finding := range rule(s) {
			t.Error(finding)
		}
	}
}

// at names a place in the file.
func (s source) at(pos token.Pos) string {
	return s.path + ":" + strconv.Itoa(s.set.Position(pos).Line)
}

func (s source) isTest() bool { return strings.HasSuffix(s.path, "_test.go") }

// within reports whether the file lies in one of the folders or below.
func (s source) within(folders ...string) bool {
	for _, folder := range folders {
		if strings.HasPrefix(s.path, folder+"/") {
			return true
		}
	}
	return false
}

func (s source) imports(path string) bool {
	for _, spec := range s.file.Imports {
		if spec.Path.Value == strconv.Quote(path) {
			return true
		}
	}
	return false
}

// uses returns where the file names a package's member, such as time.Now,
// under whatever name it imports the package.
func (s source) uses(pkg, member string) (places []token.Pos) {
	local := ""
	for _, spec := range s.file.Imports {
		if spec.Path.Value == strconv.Quote(pkg) {
			local = pkg[strings.LastIndexByte(pkg, '/')+1:]
			if spec.Name != nil {
				local = spec.Name.Name
			}
		}
	}
	if local == "" {
		return nil
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == member {
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == local {
				places = append(places, sel.Pos())
			}
		}
		return true
	})
	return places
}
