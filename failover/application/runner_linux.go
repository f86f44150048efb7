// SPDX-License-Identifier: Apache-2.0

package application

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// crowd is how the processes of a service are known.
type crowd struct {
	cgroup cgroup // "": none

	// What a run's cgroup is, from before its first process until after its
	// last, so that sweep does not take it away in between.
	mu   sync.Mutex
	live map[cgroup]bool
}

// mark is how TWINBD_RUN begins for commands of a kind. The hash keeps apart
// what any way to put names together could confuse.
func (r *Runner) mark(k kind) string {
	sum := sha256.Sum256([]byte(r.config.Instance + "\x00" + r.config.Service))
	return fmt.Sprintf("%x/%s/", sum[:8], k)
}

// herd is every process of the service's commands of a kind.
func (r *Runner) herd(k kind) herds {
	h := herds{newScan(r.mark(k))}
	if r.crowd.cgroup != "" {
		h = append(h, r.crowd.cgroup.of(k))
	}
	return h
}

func (r *Runner) open(ctx context.Context) error {
	r.crowd.live = make(map[cgroup]bool)
	if r.config.Cgroup != "" {
		if err := cgroup(r.config.Cgroup).prepare(); err != nil {
			r.config.Logger.WarnContext(ctx, "no cgroup for the service's commands: they are found by session and environment", "err", err)
		} else {
			r.crowd.cgroup = cgroup(r.config.Cgroup)
		}
	}
	left := r.herd(passing)
	processes, err := left.processes()
	if err != nil {
		return err
	}
	if len(processes) > 0 {
		r.config.Logger.WarnContext(ctx, "ending commands that an earlier daemon left running", "processes", list(processes))
		return end(left, r.config.Grace, ctx.Done())
	}
	return nil
}

// Run runs a command and waits for it. When ctx or the order ends first, or the
// command's limit passes, all its processes get SIGTERM and, after the grace or
// at once when the right is lost, SIGKILL; Run returns when they are gone, and
// says which are not 5 s later. The error is a *CommandError.
func (r *Runner) Run(ctx context.Context, order Order, c Command) error {
	ctx, unbind := order.bind(ctx)
	defer unbind(nil)
	ctx, cancel := withLimit(ctx, c.Limit)
	defer cancel()
	failed := &CommandError{Name: c.Name, Line: c.text()}
	if failed.Cause = context.Cause(ctx); failed.Cause != nil {
		return failed
	}
	run, err := r.start(order, c)
	if err != nil {
		failed.Cause = err
		return failed
	}
	defer order.leave()

	var left error
	select {
	case <-run.exited:
		if !c.Stays {
			left = kill(run.own)
		}
	case <-ctx.Done():
		failed.Cause, failed.Outcome = context.Cause(ctx), Stopped
		if errors.Is(failed.Cause, os.ErrDeadlineExceeded) || errors.Is(failed.Cause, context.DeadlineExceeded) {
			failed.Outcome = TimedOut
		}
		left = end(run.all, r.config.Grace, order.forced())
	}
	ended := failed.Cause == nil
	if left == nil {
		<-run.exited // dead, but perhaps not seen yet
	}
	failed.Output = run.output.settle()
	if !ended || !c.Stays {
		run.output.close()
	}
	state := run.reap()
	r.retire(run)
	switch {
	case left != nil && ended:
		failed.Outcome, failed.Cause = Stopped, left
		return failed
	case left != nil:
		failed.Cause = failures{failed.Cause, left}
		return failed
	case !ended:
		return failed
	}
	return failed.judge(state)
}

// judge completes the error of a command that ended by itself; nil: it succeeded.
func (e *CommandError) judge(state *os.ProcessState) error {
	status, ok := state.Sys().(syscall.WaitStatus)
	switch {
	case state.Success():
		return nil
	case ok && status.Signaled():
		e.Outcome, e.Signal = Signalled, status.Signal()
	default:
		e.Outcome, e.Status = Exited, state.ExitCode()
	}
	return e
}

// run is one command under way.
type run struct {
	cmd    *exec.Cmd
	cgroup cgroup        // "": none
	own    herd          // what is cheap to look at: the cgroup where there is one
	all    herd          // all that can be known
	exited chan struct{} // closed when the command itself has ended; it is not waited for yet
	output *output
}

// start makes the process, unless the order no longer holds.
func (r *Runner) start(order Order, c Command) (*run, error) {
	argv := c.Argv
	if argv == nil {
		argv = []string{"/bin/sh", "-c", c.Line}
	}
	name := r.mark(c.kind()) + rand.Text()
	run := &run{cmd: exec.Command(argv[0], argv[1:]...), exited: make(chan struct{})}
	run.cmd.Dir = "/" // not on a file system that is to be unmounted
	run.cmd.Env = r.environment(order, c, name)
	run.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}

	marked := newScan(name)
	run.own, run.all = marked, marked
	if r.crowd.cgroup != "" {
		// Whoever keeps house in the cgroup hierarchy may have taken ours away.
		// That is no reason not to stop an application.
		dir, err := r.admit(run, c.kind())
		if err != nil {
			r.config.Logger.Warn("a command runs outside of the service's cgroup", "command", c.Name, "err", err)
		} else {
			defer dir.Close()
			run.own, run.all = run.cgroup, herds{run.cgroup, marked}
		}
	}
	output, write, err := newOutput()
	if err != nil {
		r.retire(run)
		return nil, err
	}
	defer write.Close()
	run.output, run.cmd.Stdout, run.cmd.Stderr = output, write, write
	if err := order.enter(func() error { return startChild(run.cmd) }); err != nil {
		output.close()
		r.retire(run)
		return nil, err
	}
	marked.session = run.cmd.Process.Pid
	go output.drain()
	go run.watch()
	return run, nil
}

// admit makes the run's cgroup, and lets the process be born there.
func (r *Runner) admit(run *run, k kind) (*os.File, error) {
	r.crowd.mu.Lock()
	defer r.crowd.mu.Unlock()
	path, err := os.MkdirTemp(string(r.crowd.cgroup.of(k)), "run-")
	if err != nil {
		return nil, fmt.Errorf("make a cgroup: %w", err)
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open a cgroup: %w", err)
	}
	run.cgroup = cgroup(path)
	r.crowd.live[run.cgroup] = true
	run.cmd.SysProcAttr.UseCgroupFD, run.cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	return dir, nil
}

// retire gives the run's cgroup up. Where something stays in it, it is left to
// sweep.
func (r *Runner) retire(run *run) {
	if run.cgroup == "" {
		return
	}
	r.crowd.mu.Lock()
	defer r.crowd.mu.Unlock()
	delete(r.crowd.live, run.cgroup)
	_ = run.cgroup.remove()
}

// watch sees the command end without waiting for it in the sense of wait(2):
// its number, which is its session's, stays its own while the rest is looked for.
func (run *run) watch() {
	defer close(run.exited)
	for {
		err := unix.Waitid(unix.P_PID, run.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// reap ends the zombie; nil: the process has not ended yet, and is waited for
// elsewhere.
func (run *run) reap() *os.ProcessState {
	select {
	case <-run.exited:
		_ = run.cmd.Wait() // its error says what the state says
		return run.cmd.ProcessState
	default:
		go run.cmd.Wait()
		return nil
	}
}

// End ends what start commands have left behind: SIGTERM, the grace, SIGKILL.
// It returns what it found, and an error that names what is still there.
func (r *Runner) End(ctx context.Context, order Order) ([]Process, error) {
	ctx, unbind := order.bind(ctx)
	defer unbind(nil)
	return r.clear(func(h herd) error { return end(h, r.config.Grace, ctx.Done()) })
}

// Kill is End without the grace.
func (r *Runner) Kill(context.Context) ([]Process, error) { return r.clear(kill) }

func (r *Runner) clear(end func(herd) error) ([]Process, error) {
	h := r.herd(application)
	found, err := h.processes()
	if err != nil {
		return nil, fmt.Errorf("look for the application's processes: %w", err)
	}
	if len(found) > 0 {
		err = end(h)
	}
	r.sweep()
	if err != nil {
		return found, fmt.Errorf("end the application's processes: %w", err)
	}
	return found, nil
}

// sweep removes the cgroups of runs that are over and have nothing left.
func (r *Runner) sweep() {
	if r.crowd.cgroup == "" {
		return
	}
	r.crowd.mu.Lock()
	defer r.crowd.mu.Unlock()
	for _, k := range []kind{passing, application, mounting} {
		dir := string(r.crowd.cgroup.of(k))
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			r.config.Logger.Warn("cannot read the service's cgroup", "err", err)
		}
		for _, entry := range entries {
			run := cgroup(filepath.Join(dir, entry.Name()))
			if entry.IsDir() && !r.crowd.live[run] {
				_ = run.remove() // one that is not empty stays
			}
		}
	}
}
