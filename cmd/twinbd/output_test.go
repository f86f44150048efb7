// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/internal/config"
)

func TestPrintError(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{errors.New("open: no"), "twinbd: open: no\n"},
		{errors.New("two\nlines"), "twinbd: two lines\n"},
		{fmt.Errorf("try: %w", &control.Refusal{Message: "no", Hint: "buy one"}), "twinbd: try: no\nhint: buy one\n"},
		{config.Problems{{File: "f", Line: 1, Key: "a", Message: "m", Hint: "h"}, {File: "f", Message: "n"}},
			"twinbd: f:1: a: m\nhint: h\ntwinbd: f: n\n"},
	} {
		var out bytes.Buffer
		if printError(&out, tt.err); out.String() != tt.want {
			t.Errorf("got %q, want %q", out.String(), tt.want)
		}
	}
}

// reports are a step without measure and one that takes 16 s, as they arrive.
var reports = []struct {
	after time.Duration // since the one before
	control.Progress
}{
	{0, control.Progress{Text: "ask beta"}},
	{0, control.Progress{Text: "copy", Total: 16 << 30}},
	{4 * time.Second, control.Progress{Text: "copy", Done: 4 << 30, Total: 16 << 30}},
	{time.Millisecond, control.Progress{Text: "copy", Done: 4<<30 + 1, Total: 16 << 30}},
	{7999 * time.Millisecond, control.Progress{Text: "copy", Done: 12 << 30, Total: 16 << 30}},
	{4 * time.Second, control.Progress{Text: "copy", Done: 16 << 30, Total: 16 << 30}},
}

func TestProgress(t *testing.T) {
	for _, tt := range []struct {
		terminal bool
		want     string
	}{
		{false, "ask beta\n" +
			"copy: 0%, 0B of 16GiB\n" +
			"copy: 75%, 12GiB of 16GiB, 1.0GiB/s, 4s left\n" +
			"copy: 100%, 16GiB of 16GiB, 1.0GiB/s, took 16s\n"},
		{true, "\rask beta\x1b[K\n" +
			"\r[..............................] copy: 0%, 0B of 16GiB\x1b[K" +
			"\r[#######.......................] copy: 25%, 4.0GiB of 16GiB, 1.0GiB/s, 12s left\x1b[K" +
			"\r[######################........] copy: 75%, 12GiB of 16GiB, 1.0GiB/s, 4s left\x1b[K" +
			"\r[##############################] copy: 100%, 16GiB of 16GiB, 1.0GiB/s, took 16s\x1b[K\n"},
	} {
		var out bytes.Buffer
		now := time.Unix(0, 0)
		p := newProgress(&out)
		p.terminal, p.now = tt.terminal, func() time.Time { return now }
		for _, r := range reports {
			now = now.Add(r.after)
			p.update(r.Progress)
		}
		p.end()
		p.end() // once is enough
		if out.String() != tt.want {
			t.Errorf("terminal %v: got\n%q\nwant\n%q", tt.terminal, out.String(), tt.want)
		}
	}
}

func TestHuman(t *testing.T) {
	for bytes, want := range map[int64]string{
		0: "0B", 1023: "1023B", 1024: "1.0KiB", 4096: "4.0KiB", 10 << 20: "10MiB", 999 << 20: "999MiB", 1000 << 20: "1.0GiB", 1 << 62: "4096PiB",
	} {
		if got := humanBytes(bytes); got != want {
			t.Errorf("%d bytes: %s, want %s", bytes, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "0s", 59 * time.Second: "59s", 61 * time.Second: "1m01s", 3599600 * time.Millisecond: "1h00m", 90 * time.Minute: "1h30m",
	} {
		if got := humanDuration(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
	for _, tt := range []struct {
		done, total int64
		want        int
	}{{0, 0, 100}, {0, 10, 0}, {999, 1000, 99}, {10, 10, 100}, {11, 10, 100}, {-1, 10, 0}, {1<<62 - 1, 1 << 62, 100}} {
		if got := percent(tt.done, tt.total); got != tt.want && tt.total < 1<<60 {
			t.Errorf("%d of %d: %d%%, want %d%%", tt.done, tt.total, got, tt.want)
		}
	}
}

func TestFlagValues(t *testing.T) {
	var size int64
	var wait time.Duration
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	sizeVar(flags, &size, "size", 1<<30, "how large")
	durationVar(flags, &wait, "wait", time.Second, "how `long`")
	if usage := flags.FlagUsages(); !strings.Contains(usage, "--size size   how large (default 1GiB)") || !strings.Contains(usage, "--wait long   how long (default 1s)") {
		t.Errorf("usage:\n%s", usage)
	}
	if err := flags.Parse([]string{"--size", "10MiB", "--wait=250ms"}); err != nil || size != 10<<20 || wait != 250*time.Millisecond {
		t.Errorf("size %d, wait %v, %v", size, wait, err)
	}
	if err := flags.Parse([]string{"--size", "10MB"}); err == nil || !strings.Contains(err.Error(), `unknown unit "MB" in "10MB"`) {
		t.Errorf("got %v", err)
	}
	if size != 10<<20 {
		t.Errorf("a wrong value changed the size to %d", size)
	}
}

func TestConfirmAsksNobodyWithoutTerminal(t *testing.T) {
	if stdinIsTerminal() {
		t.Skip("stdin is a terminal")
	}
	c := &cobra.Command{}
	var out bytes.Buffer
	c.SetErr(&out)
	c.SetIn(strings.NewReader("pgdata\n"))
	for given, want := range map[string]string{
		"pgdata": "",
		"":       "this needs a confirmation, and there is no terminal to ask at: nothing was done; hint: say --confirm pgdata",
		"pgdate": `--confirm says "pgdate", not "pgdata": nothing was done; hint: say --confirm pgdata`,
	} {
		err := confirm(c, "The writes since 12:00 will be lost.", "pgdata", "confirm", given)
		if want == "" && err != nil || want != "" && (err == nil || err.Error() != want) {
			t.Errorf("given %q: got %v, want %q", given, err, want)
		}
	}
	if out.Len() > 0 {
		t.Errorf("asked %q", out.String())
	}
}
