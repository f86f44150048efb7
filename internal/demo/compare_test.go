// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCompareFiles(t *testing.T) {
	const size = 2*pieceSize + 100
	dir := t.TempDir()
	file := func(name string, change ...int) string {
		content := bytes.Repeat([]byte("twinbd"), size/6+1)
		for _, at := range change {
			content[at]++
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	original := file("original")
	for _, test := range []struct {
		name   string
		change []int
		err    string
	}{
		{name: "equal"},
		{name: "beyond", change: []int{size}},
		{name: "last byte", change: []int{size - 1}, err: "1 blocks of"},
		{name: "two blocks", change: []int{5000, 5001, pieceSize}, err: "2 blocks of"},
		{name: "where", change: []int{5000}, err: "the first at byte 4096"},
	} {
		err := compareFiles(original, file("other", test.change...), size)
		if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
			t.Errorf("%s: %v, want %q", test.name, err, test.err)
		}
	}
	if err := compareFiles(original, file("other"), size*2); err == nil {
		t.Error("files that are too short are not noticed")
	}
}
