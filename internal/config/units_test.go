// SPDX-License-Identifier: Apache-2.0

package config

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseUnits(t *testing.T) {
	for text, want := range map[string]int64{
		"0KiB": 0, "1KiB": 1024, "10GiB": 10 << 30, "8388607TiB": 8388607 << 40,
		"": -1, "GiB": -1, "1": -1, "-1GiB": -1, "1.5GiB": -1, "1 GiB": -1, "1gib": -1, "8388608TiB": -1,
		"99999999999999999999KiB": -1, "1GiB ": -1, "１GiB": -1,
	} {
		got, err := ParseSize(text)
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for text, want := range map[string]time.Duration{
		"250ms": 250 * time.Millisecond, "3s": 3 * time.Second, "1m": time.Minute, "2h": 2 * time.Hour,
		"1d": -1, "1m30s": -1, "5": -1, "9999999999h": -1,
	} {
		got, err := ParseDuration(text)
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("ParseDuration(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
}

func TestFormatIsParsed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(0, 1<<50).Draw(t, "KiB") * 1024
		if size == 0 {
			return // written as 0B, which no file may say
		}
		if got, err := ParseSize(FormatSize(size)); err != nil || got != size {
			t.Fatalf("%d is written %s and read %d, %v", size, FormatSize(size), got, err)
		}
		d := time.Duration(rapid.Int64Range(1, 1<<40).Draw(t, "ms")) * time.Millisecond
		if got, err := ParseDuration(FormatDuration(d)); err != nil || got != d {
			t.Fatalf("%d is written %s and read %d, %v", d, FormatDuration(d), got, err)
		}
	})
}

func TestDistanceIsAMetric(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.StringMatching(`[a-d]{0,8}`)
		a, b, c := word.Draw(t, "a"), word.Draw(t, "b"), word.Draw(t, "c")
		if distance(a, b) != distance(b, a) || distance(a, a) != 0 || a != b && distance(a, b) == 0 {
			t.Fatalf("distance(%q, %q) = %d, back %d", a, b, distance(a, b), distance(b, a))
		}
		if distance(a, c) > distance(a, b)+distance(b, c) {
			t.Fatalf("the way from %q over %q to %q is shorter than the straight one", a, b, c)
		}
	})
}
