// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// section reads one table of a document. Each method takes one key, reports a
// value of the wrong kind, and returns the fallback in its place, so that one
// mistake hides no other. What was never taken is reported by end.
type section struct {
	doc    *document
	path   string
	values map[string]any
	taken  []string
}

// fault reports that the value of a key of this section is wrong.
func (s *section) fault(name, hint, format string, args ...any) {
	key := join(s.path, name)
	s.doc.report(s.doc.line(key), key, hint, format, args...)
}

func (s *section) take(name string) (any, bool) {
	s.taken = append(s.taken, name)
	value, ok := s.values[name]
	return value, ok
}

// has says whether the file sets the key.
func (s *section) has(name string) bool {
	_, ok := s.values[name]
	return ok
}

// wrongKind reports a value whose TOML type is not the expected one.
func (s *section) wrongKind(name string, value any, expected string) {
	s.fault(name, "", "is %s; expected %s", kindOf(value), expected)
}

func (s *section) text(name, fallback, expected string) string {
	value, ok := s.take(name)
	if !ok {
		return fallback
	}
	text, ok := value.(string)
	if !ok {
		s.wrongKind(name, value, expected)
		return fallback
	}
	return text
}

// required is text that must be there and not empty.
func (s *section) required(name, expected string) string {
	text := s.text(name, "", expected)
	switch {
	case !s.has(name):
		s.fault(name, "", "is missing; expected %s", expected)
	case text == "" && isText(s.values[name]):
		s.fault(name, "", "is empty; expected %s", expected)
	}
	return text
}

// choice is text that must be one of a few words, the first of which is the
// fallback.
func choice[T ~string](s *section, name string, words ...T) T {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = fmt.Sprintf("%q", w)
	}
	expected := strings.Join(quoted, " or ")
	text := T(s.text(name, string(words[0]), expected))
	if !slices.Contains(words, text) {
		s.fault(name, "", "%q is unknown; expected %s", text, expected)
		return words[0]
	}
	return text
}

// each gives the texts of a list to take, in order, and reports those that are
// empty or that take refuses.
func (s *section) each(name, expected string, take func(text string) error) {
	value, ok := s.take(name)
	if !ok {
		return
	}
	list, ok := value.([]any)
	if !ok {
		s.wrongKind(name, value, "a list: "+expected)
		return
	}
	for i, element := range list {
		text, ok := element.(string)
		switch {
		case !ok:
			s.wrongKind(indexed(name, i), element, expected)
			continue
		case strings.TrimSpace(text) == "":
			s.fault(indexed(name, i), "", "is empty; expected %s", expected)
			continue
		}
		if err := take(text); err != nil {
			s.fault(indexed(name, i), "", "%v", err)
		}
	}
}

// texts is a list of text, none of it empty.
func (s *section) texts(name, expected string) []string {
	var texts []string
	s.each(name, expected, func(text string) error {
		texts = append(texts, text)
		return nil
	})
	return texts
}

func (s *section) flag(name string) bool {
	value, ok := s.take(name)
	if !ok {
		return false
	}
	flag, ok := value.(bool)
	if !ok {
		s.wrongKind(name, value, "true or false")
	}
	return flag
}

func (s *section) number(name string, fallback, low, high int) int {
	value, ok := s.take(name)
	if !ok {
		return fallback
	}
	number, ok := value.(int64)
	switch {
	case !ok:
		s.wrongKind(name, value, fmt.Sprintf("a whole number, %d to %d", low, high))
		return fallback
	case number < int64(low) || number > int64(high):
		s.fault(name, "", "%d is out of range; expected %d to %d", number, low, high)
		return fallback
	}
	return int(number)
}

// size is bytes; 0 when it is wrong or not there and there is no fallback.
func (s *section) size(name string, fallback int64) int64 {
	text := s.text(name, "", `text with a unit, e.g. "10GiB"`)
	if !isText(s.values[name]) {
		return fallback
	}
	size, err := ParseSize(text)
	if err != nil {
		s.fault(name, "", "%v", err)
		return fallback
	}
	return size
}

func (s *section) duration(name string, fallback, low, high time.Duration) time.Duration {
	text := s.text(name, "", `text with a unit, e.g. "250ms"`)
	if !isText(s.values[name]) {
		return fallback
	}
	d, err := ParseDuration(text)
	switch {
	case err != nil:
		s.fault(name, "", "%v", err)
		return fallback
	case d < low || d > high:
		s.fault(name, "", "%s is out of range; expected %s to %s", text, FormatDuration(low), FormatDuration(high))
		return fallback
	}
	return d
}

// table returns a table below this one; its values are nil when the file has
// none, or something else in its place.
func (s *section) table(name string) *section {
	value, ok := s.take(name)
	below := &section{doc: s.doc, path: join(s.path, name)}
	if !ok {
		return below
	}
	if below.values, ok = value.(map[string]any); !ok {
		s.wrongKind(name, value, "a table")
	}
	return below
}

// tables returns the tables of a table, as in [node.NAME], by name.
func (s *section) tables(name string) map[string]*section {
	parent := s.table(name)
	below := map[string]*section{}
	for _, child := range slices.Sorted(maps.Keys(parent.values)) {
		if isTable(parent.values[child]) {
			below[child] = parent.table(child)
		} else {
			parent.wrongKind(child, parent.values[child], fmt.Sprintf("a table, [%s.NAME]", parent.path))
		}
	}
	return below
}

// end reports the keys that nobody asked for.
func (s *section) end() {
	for _, name := range slices.Sorted(maps.Keys(s.values)) {
		if slices.Contains(s.taken, name) {
			continue
		}
		hint := "known here: " + strings.Join(slices.Sorted(slices.Values(s.taken)), ", ")
		if near := nearest(name, s.taken); near != "" {
			hint = "did you mean " + near + "?"
		}
		s.fault(name, hint, "unknown key")
	}
}

func isText(value any) bool  { _, ok := value.(string); return ok }
func isTable(value any) bool { _, ok := value.(map[string]any); return ok }

// kindOf says in a user's words what a value is.
func kindOf(value any) string {
	switch value.(type) {
	case string:
		return "text"
	case bool:
		return "true or false"
	case int64, float64:
		return "a number"
	case []any:
		return "a list"
	case map[string]any:
		return "a table"
	default:
		return "a date or time"
	}
}
