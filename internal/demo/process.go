// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// patience is how long a node may take for what takes it a second.
const patience = 30 * time.Second

// process is a node or the witness, run by this program's own binary.
type process struct {
	name  string
	log   string // file of what it prints
	cmd   *exec.Cmd
	ended chan struct{}
	err   error // how it ended; read after ended
}

// spawn starts a process whose output is appended to a file. One that is to
// outlive the demo is not tied to it.
func spawn(name, log string, outlive bool, argv []string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make log of %s: %w", name, err)
	}
	defer out.Close()
	p := &process{name: name, log: log, cmd: exec.Command(argv[0], argv[1:]...), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	detach(p.cmd, outlive)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// kill is SIGKILL: no handler runs, nothing is flushed. It returns when the
// process is gone.
func (p *process) kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", p.name, err)
	}
	<-p.ended
	return nil
}

// stop asks the process to end, and kills it when it does not.
func (p *process) stop() error {
	if p == nil {
		return nil
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return p.kill()
	}
	select {
	case <-p.ended:
		return nil
	case <-time.After(patience):
	}
	return errors.Join(fmt.Errorf("%s did not end within %v of SIGTERM", p.name, patience), p.kill())
}

// said is the last line of the process's log.
func (p *process) said() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	text = bytes.TrimSpace(text)
	return string(text[bytes.LastIndexByte(text, '\n')+1:])
}

// until waits until try has nothing more to complain about, while the process
// lives.
func (p *process) until(ctx context.Context, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil { // else it is only that the time is over
			last = err
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s has ended (%v): %s", p.name, p.err, p.said())
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", p.name, last)
		case <-tick.C:
		}
	}
}
