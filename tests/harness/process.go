// SPDX-License-Identifier: Apache-2.0

//go:build linux

package harness

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a process may take for what takes it a moment. Machines
// that run tests are slow and busy.
const patience = 30 * time.Second

// Process is one process of a lab: what started it, and what it says. It may be
// started again after it has ended; its log goes on.
type Process struct {
	name string
	argv []string
	log  string // file with what it prints

	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how; read after done
}

// start starts the process, which must not run.
func (p *Process) start(t testing.TB) {
	t.Helper()
	if p.Running() {
		t.Fatalf("%s runs already", p.name)
	}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatalf("open log of %s: %v", p.name, err)
	}
	defer out.Close()
	cmd := exec.Command(p.argv[0], p.argv[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", p.name, err)
	}
	done := make(chan struct{})
	p.cmd, p.done = cmd, done
	go func() {
		p.err = cmd.Wait()
		close(done)
	}()
}

// Within has another command start the process from now on, which replaces itself by
// it: it is appended to the words of that command.
func (p *Process) Within(words ...string) { p.argv = append(slices.Clone(words), p.argv...) }

// Hangup has the process replace itself.
func (p *Process) Hangup(t testing.TB) {
	t.Helper()
	p.mustSignal(t, syscall.SIGHUP)
}

// Running says whether the process was started and has not ended.
func (p *Process) Running() bool {
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

func (p *Process) signal(s syscall.Signal) error {
	if !p.Running() {
		return nil
	}
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %v to %s: %w", s, p.name, err)
	}
	return nil
}

// Kill ends the process without a word, as a crash would, and waits for its end.
func (p *Process) Kill(t testing.TB) {
	t.Helper()
	if !p.Running() {
		t.Fatalf("%s has ended before it was killed (%v):\n%s", p.name, p.err, p.Tail(20))
	}
	if err := p.signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-p.done
}

// Freeze stops the process where it is; Thaw lets it go on. It returns when every
// thread stands still: until then a busy machine may let one answer a request.
func (p *Process) Freeze(t testing.TB) {
	t.Helper()
	p.mustSignal(t, syscall.SIGSTOP)
	if err := AwaitStopped(p.cmd.Process.Pid); err != nil {
		t.Fatalf("wait until %s stands still: %v", p.name, err)
	}
}

// AwaitStopped waits until every thread of a child that was sent SIGSTOP stands
// still: waitid(2) tells of a stop only then. It leaves the child's end to
// whoever waits for it.
func AwaitStopped(pid int) error {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WSTOPPED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Thaw lets a frozen process go on.
func (p *Process) Thaw(t testing.TB) { p.mustSignal(t, syscall.SIGCONT) }

func (p *Process) mustSignal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := p.signal(s); err != nil {
		t.Fatal(err)
	}
}

// Stop asks the process to end in good order and fails the test if it does not.
func (p *Process) Stop(t testing.TB) {
	t.Helper()
	if err := p.stop(); err != nil {
		t.Error(err)
	}
}

func (p *Process) stop() error {
	if !p.Running() {
		return nil
	}
	if err := errors.Join(p.signal(syscall.SIGTERM), p.signal(syscall.SIGCONT)); err != nil {
		return err
	}
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case <-p.done:
	case <-limit.C:
		_ = p.signal(syscall.SIGQUIT) // the log then says where it hangs
		dying := time.NewTimer(patience)
		defer dying.Stop()
		select {
		case <-p.done:
		case <-dying.C:
			_ = p.signal(syscall.SIGKILL)
			<-p.done
		}
		return fmt.Errorf("%s did not end within %v of SIGTERM", p.name, patience)
	}
	if p.err != nil {
		return fmt.Errorf("%s was asked to end: %w", p.name, p.err)
	}
	return nil
}

// Log is all that the process has said.
func (p *Process) Log() string {
	b, _ := os.ReadFile(p.log) // none yet: it has said nothing
	return string(b)
}

// Tail is the last lines of the log.
func (p *Process) Tail(lines int) string {
	all := strings.Split(strings.TrimRight(p.Log(), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// Output is how a command ended.
type Output struct {
	Stdout, Stderr string
	Code           int
}

// String shows it as a terminal would.
func (o Output) String() string {
	return fmt.Sprintf("%s%s[exit code %d]", o.Stdout, o.Stderr, o.Code)
}

// runLimit bounds a command.
const runLimit = 2 * time.Minute

// Run runs a command to its end.
func Run(t testing.TB, argv ...string) Output {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", filepath.Base(argv[0]), err)
	}
	hung := time.AfterFunc(runLimit, func() { cmd.Process.Kill() })
	err := cmd.Wait()
	if !hung.Stop() {
		t.Fatalf("%s hung:\n%s%s", strings.Join(argv, " "), stdout.String(), stderr.String())
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok || ok && !exit.Exited() {
		t.Fatalf("run %s: %v\n%s%s", strings.Join(argv, " "), err, stdout.String(), stderr.String())
	}
	return Output{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// MustRun runs a command that must succeed, and returns what it printed.
func MustRun(t testing.TB, argv ...string) string {
	t.Helper()
	out := Run(t, argv...)
	if out.Code != 0 {
		t.Fatalf("%s:\n%s", strings.Join(argv, " "), out)
	}
	return out.Stdout
}
