// SPDX-License-Identifier: Apache-2.0

package config

import (
	"strings"
	"testing"
)

// FuzzParse holds that no file makes Parse panic, that what it takes is whole,
// and that what it refuses names a line of the file.
func FuzzParse(f *testing.F) {
	f.Add(base)
	f.Add(Sample())
	for _, r := range refusals {
		f.Add(strings.Replace(base, r.old, r.new, 1))
	}
	f.Fuzz(func(t *testing.T, text string) {
		cfg, err := Parse("f.toml", []byte(text))
		if err != nil {
			lines := strings.Count(text, "\n") + 1
			for _, p := range err.(Problems) {
				if p.Message == "" || p.Line < 0 || p.Line > lines {
					t.Errorf("problem %+v in a file of %d lines", p, lines)
				}
			}
			return
		}
		if len(cfg.Nodes) != 2 || len(cfg.Services) == 0 || cfg.Digest() == "" {
			t.Errorf("taken, but not whole: %+v", cfg)
		}
		for _, s := range cfg.Services {
			for _, v := range s.Volumes {
				if v.Size <= 0 || v.Size%BlockSize != 0 || len(v.Disk) != 2 || len(v.Export) != 2 {
					t.Errorf("taken, but not whole: %+v", v)
				}
			}
		}
	})
}
