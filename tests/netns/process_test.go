// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twinbd/twinbd/tests/harness"
)

// patience is for what takes a process a moment; machines that test are busy.
const patience = 60 * time.Second

// process is a program that runs in a namespace. It may be started again after
// it has ended; its log goes on.
type process struct {
	name  string
	space *space
	argv  []string
	log   string
	pid   string // file with its process id, for scripts; "" for none

	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how; read after done
}

func (p *process) start(t testing.TB) {
	t.Helper()
	if p.running() {
		t.Fatalf("%s runs already", p.name)
	}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatalf("open log of %s: %v", p.name, err)
	}
	defer out.Close()
	cmd := exec.Command(p.argv[0], p.argv[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.space.do(cmd.Start); err != nil {
		t.Fatalf("start %s: %v", p.name, err)
	}
	if p.pid != "" {
		if err := os.WriteFile(p.pid, fmt.Appendln(nil, cmd.Process.Pid), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan struct{})
	p.cmd, p.done = cmd, done
	go func() {
		p.err = cmd.Wait()
		close(done)
	}()
}

func (p *process) running() bool {
	if p.done == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

func (p *process) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if !p.running() {
		t.Fatalf("%s has ended by itself (%v):\n%s", p.name, p.err, p.tail(20))
	}
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatalf("signal %v to %s: %v", s, p.name, err)
	}
}

// kill ends the process as a crash would, and waits for its end.
func (p *process) kill(t testing.TB) {
	t.Helper()
	p.signal(t, syscall.SIGKILL)
	<-p.done
}

// freeze stops the process and returns when it stands still.
func (p *process) freeze(t testing.TB) {
	t.Helper()
	p.signal(t, syscall.SIGSTOP)
	if err := harness.AwaitStopped(p.cmd.Process.Pid); err != nil {
		t.Fatalf("wait until %s stands still: %v", p.name, err)
	}
}

func (p *process) thaw(t testing.TB) { t.Helper(); p.signal(t, syscall.SIGCONT) }

// stop asks the process to end in good order.
func (p *process) stop(t testing.TB) {
	t.Helper()
	if !p.running() {
		return
	}
	p.signal(t, syscall.SIGTERM)
	_ = p.cmd.Process.Signal(syscall.SIGCONT) // it may have ended by now
	if !p.ends(patience) {
		p.signal(t, syscall.SIGQUIT) // the log then says where it hangs
		if !p.ends(patience) {
			p.signal(t, syscall.SIGKILL)
			<-p.done
		}
		t.Errorf("%s did not end within %v of SIGTERM", p.name, patience)
		return
	}
	if p.err != nil {
		t.Errorf("%s was asked to end: %v", p.name, p.err)
	}
}

// ends waits for the end of the process.
func (p *process) ends(limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.done:
		return true
	case <-timer.C:
		return false
	}
}

func (p *process) text() string {
	b, _ := os.ReadFile(p.log) // none yet: it has said nothing
	return string(b)
}

func (p *process) tail(lines int) string {
	all := strings.Split(strings.TrimRight(p.text(), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// crashed finds what no program may say.
func (p *process) crashed() string {
	for _, sign := range []string{"panic: ", "fatal error: ", "DATA RACE"} {
		if _, after, ok := strings.Cut(p.text(), sign); ok {
			return sign + after[:min(len(after), 4000)]
		}
	}
	return ""
}

// keep copies a log to a directory that outlives the test.
func (p *process) keep(dir string) error {
	return os.WriteFile(filepath.Join(dir, p.name+".log"), []byte(p.text()), 0o600)
}
