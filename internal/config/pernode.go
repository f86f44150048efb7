// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// perNode reads a value that may differ between the nodes: one text for both, in
// which {node} stands for the name, or a table with a text for each. It returns
// nil when the key is not there, and otherwise what is right of it.
func (s *section) perNode(name string, nodes []string, expected string, check func(string) error) map[string]string {
	value, ok := s.take(name)
	if !ok {
		return nil
	}
	texts := map[string]string{}
	switch value := value.(type) {
	case string:
		for _, node := range nodes {
			texts[node] = expand(value, node)
		}
	case map[string]any:
		texts = s.byNode(name, value, nodes, expected)
	default:
		s.wrongKind(name, value, fmt.Sprintf("%s, or a table with one for each node", expected))
	}
	for _, node := range slices.Sorted(maps.Keys(texts)) {
		if err := check(texts[node]); err != nil {
			s.fault(s.nodeKey(name, node), "", "%v", err)
			delete(texts, node)
		}
	}
	return texts
}

func (s *section) byNode(name string, table map[string]any, nodes []string, expected string) map[string]string {
	texts := map[string]string{}
	for _, node := range slices.Sorted(maps.Keys(table)) {
		text, ok := table[node].(string)
		switch {
		case !slices.Contains(nodes, node):
			s.fault(join(name, node), didYouMean(node, nodes), "there is no node %s", node)
		case !ok:
			s.wrongKind(join(name, node), table[node], expected)
		default:
			texts[node] = expand(text, node)
		}
	}
	for _, node := range nodes {
		if _, ok := table[node]; !ok {
			s.fault(name, "", "has nothing for node %s; expected %s for each node", node, expected)
		}
	}
	return texts
}

// nodeKey is the key under which a per-node value of one node was written.
func (s *section) nodeKey(name, node string) string {
	if isTable(s.values[name]) {
		return join(name, node)
	}
	return name
}

// expand puts a node's name where a path says {node}.
func expand(text, node string) string { return strings.ReplaceAll(text, "{node}", node) }

func didYouMean(word string, words []string) string {
	if near := nearest(word, words); near != "" {
		return "did you mean " + near + "?"
	}
	return ""
}
