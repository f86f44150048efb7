// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/twinbd/twinbd/control"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"twinbd": main})
}

// TestScripts runs testdata/*.txt: the program as its users see it.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			// Scripts have a short directory of their own for sockets, whose paths
			// may not be long.
			run, err := os.MkdirTemp("", "twinbd")
			if err != nil {
				return err
			}
			env.Defer(func() { os.RemoveAll(run) })
			env.Setenv("RUN", run)
			env.Setenv("TWINBD_NODE", "alpha")
			env.Setenv("TZ", "UTC")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"node":  cmdNode,
			"paths": cmdPaths,
			"code":  cmdCode,
		},
	})
}

// node SOCKET STATUS.json [ANSWERS.json] answers at a socket, until the script
// ends, as a node of that status would. It refuses every action for which there is
// no answer.
func cmdNode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: node SOCKET STATUS.json [ANSWERS.json]")
	}
	var n fixed
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[1])), &n.status))
	if len(args) == 3 {
		ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[2])), &n.answers))
	}
	events := control.NewEvents(max(n.answers.Keep, 1))
	for _, e := range n.answers.Events {
		events.Add(e)
	}
	listener, err := control.Listen(args[0], control.DefaultMode)
	ts.Check(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- control.Serve(ctx, listener, n, events, slog.New(slog.DiscardHandler))
	}()
	ts.Defer(func() {
		cancel()
		ts.Check(<-done)
	})
}

// fixed is a node that never changes.
type fixed struct {
	status  control.Status
	answers answers
}

// answers are what a fixed node says.
type answers struct {
	Keep   int // events
	Events []control.Event
	Acts   map[string]answer // by verb
}

// answer is what it says to an action, if that is asked with these arguments.
type answer struct {
	Service, Volume string
	Args            map[string]string
	Progress        []control.Progress
	Error, Hint     string
}

func (f fixed) Status() control.Status { return f.status }

func (f fixed) Act(_ context.Context, a control.Action, progress func(control.Progress)) error {
	answer, known := f.answers.Acts[a.Verb]
	switch {
	case !known:
		return control.ErrUnknownVerb
	case a.Service != answer.Service || a.Volume != answer.Volume || !maps.Equal(a.Args, answer.Args):
		return fmt.Errorf("asked for %s %s/%s with %v", a.Verb, a.Service, a.Volume, a.Args)
	}
	for _, p := range answer.Progress {
		progress(p)
	}
	if answer.Error != "" {
		return &control.Refusal{Message: answer.Error, Hint: answer.Hint}
	}
	return nil
}

// paths FILE... puts the values of $WORK and $RUN into files.
func cmdPaths(ts *testscript.TestScript, neg bool, args []string) {
	for _, arg := range args {
		text := os.Expand(ts.ReadFile(arg), func(name string) string {
			if name == "WORK" || name == "RUN" {
				return filepath.ToSlash(ts.Getenv(name))
			}
			return "$" + name
		})
		ts.Check(os.WriteFile(ts.MkAbs(arg), []byte(text), 0o600))
	}
}

var exitStatus = regexp.MustCompile(`^exit status \d+$`)

// code N COMMAND... runs a command that must end with that exit code; its
// output is then matched with stdout and stderr.
func cmdCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND...")
	}
	got := "0"
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		if !exitStatus.MatchString(err.Error()) {
			ts.Fatalf("run %s: %v", args[1], err)
		}
		fmt.Sscanf(err.Error(), "exit status %s", &got)
	}
	if got != args[0] {
		ts.Fatalf("%v ended with exit code %s, want %s", args[1:], got, args[0])
	}
}
