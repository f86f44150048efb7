// SPDX-License-Identifier: Apache-2.0

package tidy

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/format"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestFormat(t *testing.T)         { each(t, unformatted) }
func TestLicenceLine(t *testing.T)    { each(t, unlicensed) }
func TestNoSleepInTests(t *testing.T) { each(t, sleeps) }
func TestNoClockInCores(t *testing.T) { each(t, clocks) }
func TestNoBackground(t *testing.T)   { each(t, backgrounds) }
func TestNothingLeftOpen(t *testing.T) {
	each(t, unfinished)
}

func unformatted(s source) []string {
	if s.file == nil {
		return nil
	}
	formatted, err := format.Source(s.text)
	if err != nil || !bytes.Equal(formatted, s.text) {
		return []string{s.path + ": not formatted; run gofmt -w on it"}
	}
	return nil
}

const licence = "SPDX-License-Identifier: Apache-2.0"

// unlicensed wants the line first, in a script second.
func unlicensed(s source) []string {
	lines := strings.SplitN(string(s.text), "\n", 3)
	want, got := "// "+licence, lines[0]
	if s.file == nil && len(lines) > 1 {
		want, got = "# "+licence, lines[1]
	}
	if got != want {
		return []string{fmt.Sprintf("%s: does not begin with %q", s.path, want)}
	}
	return nil
}

// sleeps finds tests that hope. Under testing/synctest, where time is virtual,
// a timer does as well.
func sleeps(s source) (found []string) {
	if s.file == nil || !s.isTest() {
		return nil
	}
	for _, pos := range s.uses("time", "Sleep") {
		found = append(found, s.at(pos)+": sleeps; wait for a condition, or use testing/synctest and a timer")
	}
	return found
}

// clockFiles are where a shell's clock is made, beside the core that it drives.
var clockFiles = []string{"failover/clock_other.go"}

// clocks finds a core that asks for the time instead of being told. A file
// that imports net or os belongs to the shell around a core: it does I/O.
func clocks(s source) (found []string) {
	if s.file == nil || s.isTest() || !s.within("nbd", "mirror", "bitmap", "failover") || s.imports("net") || s.imports("os") || slices.Contains(clockFiles, s.path) {
		return nil
	}
	for _, member := range []string{"Now", "Since", "Until", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick", "Sleep"} {
		for _, pos := range s.uses("time", member) {
			found = append(found, fmt.Sprintf("%s: time.%s in a core; the caller says what time it is", s.at(pos), member))
		}
	}
	return found
}

// backgrounds finds work that nobody can cancel. Where programs begin, and in
// tests, a context has to come from somewhere.
func backgrounds(s source) (found []string) {
	if s.file == nil || s.isTest() || s.within("cmd", "bench", "tests") || ownLifetimes[s.path] != "" {
		return nil
	}
	for _, member := range []string{"Background", "TODO"} {
		for _, pos := range s.uses("context", member) {
			found = append(found, fmt.Sprintf("%s: context.%s; take the caller's context", s.at(pos), member))
		}
	}
	return found
}

// ownLifetimes are the files whose contexts begin with themselves, and why.
var ownLifetimes = map[string]string{
	"failover/client.go": "the client's lifetime, which Close ends",
	"control/listen.go":  "binding a Unix socket waits for nothing",

	"internal/node/export.go": "binding a socket waits for nothing",
	"internal/node/app.go":    "what an earlier daemon left is ended within a limit of its own",
}

var openWord = regexp.MustCompile(`\b(TODO|FIXME|XXX)\b`)

func unfinished(s source) (found []string) {
	if s.file == nil {
		if word := openWord.Find(s.text); word != nil {
			found = append(found, fmt.Sprintf("%s: %s: finish it or open an issue", s.path, word))
		}
		return found
	}
	for _, group := range s.file.Comments {
		for _, comment := range group.List {
			if word := openWord.FindString(comment.Text); word != "" {
				found = append(found, fmt.Sprintf("%s: %s: finish it or open an issue", s.at(comment.Pos()), word))
			}
		}
	}
	return found
}

// Every package says what it is, libraries in doc.go.
func TestPackageComments(t *testing.T) {
	all, err := sources()
	if err != nil {
		t.Fatal(err)
	}
	for _, finding := range undocumented(all) {
		t.Error(finding)
	}
}

func undocumented(all []source) (found []string) {
	where := make(map[string]string) // folder → file with the comment
	for _, s := range all {
		if s.file == nil || s.isTest() {
			continue
		}
		folder := path.Dir(s.path)
		if _, ok := where[folder]; !ok {
			where[folder] = ""
		}
		if hasDoc(s.file) && (s.file.Name.Name == "main" || path.Base(s.path) == "doc.go") {
			where[folder] = s.path
		}
	}
	for folder, file := range where {
		if file == "" {
			found = append(found, folder+": no package comment; doc.go is the place for it")
		}
	}
	slices.Sort(found)
	return found
}

func hasDoc(file *ast.File) bool {
	return file.Doc != nil && strings.TrimSpace(strings.ReplaceAll(file.Doc.Text(), licence, "")) != ""
}
