// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"sort"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// maxFile is how large a configuration may be, in bytes.
const maxFile = 1 << 20

// document is a parsed file: its values, and the line of every key.
//
// Values and lines come from two passes over the same bytes, because the
// decoder knows all rules of TOML (what may be defined twice, which table may
// be extended) but stops at the first value of a wrong type and tells no lines
// of right ones, and the parser tells lines but knows few rules.
type document struct {
	file     string
	root     map[string]any
	lines    map[string]int // by dotted key; array elements as key[0]
	problems Problems
}

// parseDocument returns a document without values when data is no TOML; the
// reason is then its only problem.
func parseDocument(file string, data []byte) *document {
	d := &document{file: file, lines: map[string]int{}}
	if len(data) > maxFile {
		d.report(0, "", "", "larger than %s, so it is no configuration", FormatSize(maxFile))
		return d
	}
	var root map[string]any
	if err := toml.Unmarshal(data, &root); err != nil {
		line, message := 0, err.Error()
		if decode, ok := errors.AsType[*toml.DecodeError](err); ok {
			line, _ = decode.Position()
		}
		d.report(line, "", "", "%s", strings.TrimPrefix(message, "toml: "))
		return d
	}
	d.root = root
	d.findLines(data)
	return d
}

// line returns where a key stands, or for one that is not there the nearest
// table around it.
func (d *document) line(key string) int {
	for key != "" {
		if line, ok := d.lines[key]; ok {
			return line
		}
		cut := strings.LastIndexAny(key, ".[")
		key = key[:max(cut, 0)]
	}
	return 0
}

// report adds a problem.
func (d *document) report(line int, key, hint, format string, args ...any) {
	d.problems = append(d.problems, Problem{
		File: d.file, Line: line, Key: key, Message: fmt.Sprintf(format, args...), Hint: hint,
	})
}

// findLines fills lines. Data is known to be right.
func (d *document) findLines(data []byte) {
	var ends []int // offsets of the line feeds
	for i, c := range data {
		if c == '\n' {
			ends = append(ends, i)
		}
	}
	lineAt := func(r unstable.Range) int { return sort.SearchInts(ends, int(r.Offset)) + 1 }

	var parser unstable.Parser
	parser.Reset(data)
	table := ""
	for parser.NextExpression() {
		switch node := parser.Expression(); node.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = d.noteKey("", node.Key(), lineAt)
		case unstable.KeyValue:
			d.noteKeyValue(table, node, lineAt)
		}
	}
}

// noteKey records the parts of a dotted key below prefix and returns all of it.
func (d *document) noteKey(prefix string, parts unstable.Iterator, lineAt func(unstable.Range) int) string {
	key := prefix
	for parts.Next() {
		part := parts.Node()
		key = join(key, string(part.Data))
		if _, ok := d.lines[key]; !ok || parts.IsLast() {
			d.lines[key] = lineAt(part.Raw)
		}
	}
	return key
}

func (d *document) noteKeyValue(prefix string, node *unstable.Node, lineAt func(unstable.Range) int) {
	key := d.noteKey(prefix, node.Key(), lineAt)
	children := node.Value().Children()
	switch node.Value().Kind {
	case unstable.InlineTable:
		for children.Next() {
			if children.Node().Kind == unstable.KeyValue {
				d.noteKeyValue(key, children.Node(), lineAt)
			}
		}
	case unstable.Array:
		for i := 0; children.Next(); {
			element := children.Node()
			if element.Kind == unstable.Comment {
				continue
			}
			if element.Raw.Length > 0 {
				d.lines[indexed(key, i)] = lineAt(element.Raw)
			}
			i++
		}
	}
}

// join puts a name below a prefix; either may be empty.
func join(prefix, name string) string {
	if prefix == "" || name == "" {
		return prefix + name
	}
	return prefix + "." + name
}

func indexed(key string, index int) string { return fmt.Sprintf("%s[%d]", key, index) }
