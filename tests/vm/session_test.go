// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twinbd/twinbd/tests/harness"
	"github.com/twinbd/twinbd/tests/vm/wire"
)

// session is what a test and the init of a machine say to each other, from its start
// to the end of its power.
type session struct {
	machine *machine
	conn    net.Conn
	ready   chan struct{} // closed when init answers

	mu       sync.Mutex // guards out too
	out      *json.Encoder
	last     int64
	programs map[int64]*program
}

// program is one that runs in a machine, or has run.
type program struct {
	session *session
	id      int64
	argv    []string
	ended   chan struct{} // closed when it has ended, or the machine has

	// Read after ended:
	code int
	err  error // it did not start, or the machine went off

	mu             sync.Mutex
	stdout, stderr bytes.Buffer
	log            io.Writer // gets both instead, unless nil
}

func newSession(m *machine, conn net.Conn) *session {
	s := &session{machine: m, conn: conn, ready: make(chan struct{}), out: json.NewEncoder(conn), programs: make(map[int64]*program)}
	go s.listen()
	return s
}

func (s *session) listen() {
	for in := json.NewDecoder(s.conn); ; {
		var a wire.Answer
		if in.Decode(&a) != nil {
			s.end()
			return
		}
		if a.ID == 0 {
			close(s.ready)
			continue
		}
		s.mu.Lock()
		p := s.programs[a.ID]
		if a.Ended {
			delete(s.programs, a.ID)
		}
		s.mu.Unlock()
		if p != nil {
			p.take(a)
		}
	}
}

func (p *program) take(a wire.Answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.log != nil {
		_, _ = p.log.Write(append(a.Stdout, a.Stderr...))
	} else {
		p.stdout.Write(a.Stdout)
		p.stderr.Write(a.Stderr)
	}
	if a.Ended {
		if p.code = a.Code; a.Error != "" {
			p.err = errors.New(a.Error)
		}
		close(p.ended)
	}
}

// end is the end of the machine, and of all that ran in it.
func (s *session) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.conn.Close()
	for id, p := range s.programs {
		delete(s.programs, id)
		p.err = errGone
		close(p.ended)
	}
}

// start starts a program in the machine; what it prints goes to log unless that is
// nil.
func (m *machine) start(t testing.TB, log io.Writer, stdin []byte, argv ...string) *program {
	t.Helper()
	s := m.console
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	p := &program{session: s, id: s.last, argv: argv, log: log, ended: make(chan struct{})}
	s.programs[p.id] = p
	if err := s.out.Encode(wire.Request{ID: p.id, Argv: argv, Stdin: stdin}); err != nil {
		t.Fatalf("start %v on %s: %v", argv, m.name, err)
	}
	return p
}

// signal goes to the program's process group.
func (p *program) signal(t testing.TB, signal syscall.Signal) {
	t.Helper()
	p.session.mu.Lock()
	defer p.session.mu.Unlock()
	if err := p.session.out.Encode(wire.Request{ID: p.id, Signal: int(signal)}); err != nil {
		t.Errorf("signal %v to %v: %v", signal, p.argv, err)
	}
}

// wait waits for the end of the program.
func (p *program) wait(limit time.Duration) (out harness.Output, err error) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.ended:
		p.mu.Lock()
		defer p.mu.Unlock()
		return harness.Output{Stdout: p.stdout.String(), Stderr: p.stderr.String(), Code: p.code}, p.err
	case <-timer.C:
		return out, fmt.Errorf("it has not ended within %v", limit)
	}
}

// run runs a program in the machine to its end.
func (m *machine) run(t testing.TB, argv ...string) (out harness.Output) {
	t.Helper()
	out, err := m.start(t, nil, nil, argv...).wait(patience)
	if err != nil {
		t.Fatalf("%s: %s: %v", m.name, strings.Join(argv, " "), err)
	}
	return out
}

// must is run of what must succeed; it returns what was printed.
func (m *machine) must(t testing.TB, argv ...string) string {
	t.Helper()
	out := m.run(t, argv...)
	if out.Code != 0 {
		t.Fatalf("%s: %s: %s", m.name, strings.Join(argv, " "), out)
	}
	return out.Stdout
}

// shell is must of a script.
func (m *machine) shell(t testing.TB, script string) string {
	t.Helper()
	return m.must(t, "sh", "-euc", script)
}

// tail is the last lines of a file.
func tail(path string, lines int) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
