// SPDX-License-Identifier: Apache-2.0

package application

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"
	"unicode"
)

// Action is what a command is for; it finds it in TWINBD_ACTION.
type Action string

// The actions.
const (
	ActionStart Action = "start"
	ActionStop  Action = "stop"
	ActionCheck Action = "check"
	ActionFence Action = "fence"
	ActionDisk  Action = "disk" // mount, umount, fsck
)

// Command is one command to be run.
type Command struct {
	Name   string // what it is, as errors begin: "start command 1"
	Action Action

	// Line is given to /bin/sh -c; or, with Argv, it is unused and no shell is
	// involved.
	Line string
	Argv []string

	// Limit is after what time the command is ended; 0: when its context ends.
	Limit time.Duration

	// Stays says that processes which the command leaves behind are meant to
	// stay once it has ended by itself: the application. Otherwise they are
	// killed.
	Stays bool

	// Peer is for TWINBD_PEER; "": not set.
	Peer string
}

// kind is a group of a service's commands, that is ended as a whole.
type kind string

const (
	passing     kind = "command"     // nothing of it outlives the command
	application kind = "application" // what start commands leave behind
	mounting    kind = "mount"       // file systems in user space
)

func (c Command) kind() kind {
	switch {
	case !c.Stays:
		return passing
	case c.Action == ActionDisk:
		return mounting
	default:
		return application
	}
}

func (c Command) text() string {
	if c.Argv != nil {
		return strings.Join(c.Argv, " ")
	}
	return c.Line
}

// Outcome is how a command ended that did not succeed.
type Outcome int

// The outcomes.
const (
	NotStarted Outcome = iota // no process was made
	Exited                    // with a status other than 0
	Signalled                 // by a signal that is not ours
	TimedOut                  // ended by us after its time
	Stopped                   // ended by us because its order, or its caller's context, ended
)

// CommandError says how a command failed. Its text is one line.
type CommandError struct {
	Name    string // as in Command
	Line    string // as in Command, or its arguments
	Outcome Outcome
	Status  int            // Exited: 1 to 255
	Signal  syscall.Signal // Signalled
	Output  string         // the end of what it printed, at most 4 KiB
	Cause   error          // NotStarted, TimedOut, Stopped: why
}

// Unwrap gives the cause: ErrEnded, ErrForced, a context's or a system's error.
func (e *CommandError) Unwrap() error { return e.Cause }

func (e *CommandError) Error() string {
	return fmt.Sprintf("%s (%q) %s", e.Name, shorten(e.Line), e.ending())
}

func (e *CommandError) ending() string {
	switch e.Outcome {
	case NotStarted:
		return fmt.Sprintf("was not started: %v", e.Cause)
	case TimedOut:
		if limit, ok := errors.AsType[limitError](e.Cause); ok {
			return fmt.Sprintf("did not end within %v and was killed%s%s", limit.limit, e.said(), e.undead())
		}
		return "did not end in time and was killed" + e.said() + e.undead()
	case Stopped:
		return fmt.Sprintf("was ended: %v%s", e.Cause, e.said())
	case Signalled:
		return fmt.Sprintf("was killed by a signal from elsewhere (%v)%s", e.Signal, e.said())
	}
	switch e.Status {
	case 126:
		return "exited with status 126, not executable" + e.said() + "; hint: chmod +x, or name its interpreter"
	case 127:
		return "exited with status 127, command not found" + e.said() + "; hint: give the full path"
	}
	if e.Status > 128 && e.Status < 128+65 {
		return fmt.Sprintf("exited with status %d, of a command killed by a signal (%v)%s", e.Status, syscall.Signal(e.Status-128), e.said())
	}
	return fmt.Sprintf("exited with status %d%s", e.Status, e.said())
}

// undead names those of a timed out command that SIGKILL did not end.
func (e *CommandError) undead() string {
	if left, ok := errors.AsType[undeadError](e.Cause); ok {
		return "; " + left.Error()
	}
	return ""
}

// said is what the command itself said last.
func (e *CommandError) said() string {
	lines := strings.FieldsFunc(e.Output, func(r rune) bool { return r == '\n' || r == '\r' })
	for len(lines) > 0 {
		if last := strings.TrimSpace(printable(lines[len(lines)-1])); last != "" {
			return ": " + shorten(last)
		}
		lines = lines[:len(lines)-1]
	}
	return ""
}

// printable keeps what a stranger's program prints from moving the cursor.
func printable(line string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, line)
}

// shorten cuts what would make an error unreadable.
func shorten(text string) string {
	const limit = 200
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "") + "…"
}
