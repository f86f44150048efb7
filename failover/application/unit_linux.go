// SPDX-License-Identifier: Apache-2.0

package application

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
)

// callOff is how long calling a start off may take.
const callOff = 5 * time.Second

// manager is what is needed of a connection to systemd.
type manager interface {
	StartUnitContext(ctx context.Context, name, mode string, result chan<- string) (int, error)
	StopUnitContext(ctx context.Context, name, mode string, result chan<- string) (int, error)
	KillUnitWithTarget(ctx context.Context, name string, target dbus.Who, signal int32) error
	GetUnitPropertyContext(ctx context.Context, unit, property string) (*dbus.Property, error)
	Close()
}

// Systemd is the Units of systemd, over D-Bus. Each call makes a connection of
// its own: calls are rare, and the bus may be restarted between them.
type Systemd struct {
	connect func(context.Context) (manager, error)
}

var _ Units = (*Systemd)(nil)

// NewSystemd connects at the first call.
func NewSystemd() *Systemd {
	return &Systemd{connect: func(ctx context.Context) (manager, error) {
		conn, err := dbus.NewWithContext(ctx)
		if err != nil {
			return nil, fmt.Errorf("connect to systemd: %w; hint: unit: needs a system that runs systemd", err)
		}
		return conn, nil
	}}
}

// Start asks for the job and waits for its result. A job that is under way when
// ctx ends is replaced by one that stops the unit: systemd would go on with it.
func (s *Systemd) Start(ctx context.Context, unit string) error {
	m, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer m.Close()
	result := make(chan string, 1)
	_, err = m.StartUnitContext(ctx, unit, "replace", result)
	if err == nil {
		err = s.await(ctx, "start", result)
	}
	if ctx.Err() != nil {
		// Also when the request itself was interrupted: it may have arrived.
		rest, cancel := context.WithTimeout(context.WithoutCancel(ctx), callOff)
		defer cancel()
		if _, failed := m.StopUnitContext(rest, unit, "replace", nil); failed != nil {
			err = failures{err, fmt.Errorf("call it off: %w", failed)}
		}
	}
	return s.explain(ctx, m, unit, err)
}

// Stop asks for the job and waits for its result.
func (s *Systemd) Stop(ctx context.Context, unit string) error {
	m, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer m.Close()
	result := make(chan string, 1)
	if _, err = m.StopUnitContext(ctx, unit, "replace", result); err == nil {
		err = s.await(ctx, "stop", result)
	}
	return s.explain(ctx, m, unit, err)
}

// Kill orders the stop first, so that systemd does not start anew what dies.
func (s *Systemd) Kill(ctx context.Context, unit string) error {
	m, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer m.Close()
	result := make(chan string, 1)
	if _, err := m.StopUnitContext(ctx, unit, "replace", result); err != nil {
		return s.explain(ctx, m, unit, err)
	}
	// That there is nothing to kill is an error here; the result tells.
	_ = m.KillUnitWithTarget(ctx, unit, dbus.All, int32(syscall.SIGKILL))
	again := time.NewTicker(100 * time.Millisecond) // the stop's own commands are processes of the unit too
	defer again.Stop()
	for {
		select {
		case <-result: // a unit that was killed may be called failed; it is down
			return nil
		case <-again.C:
			_ = m.KillUnitWithTarget(ctx, unit, dbus.All, int32(syscall.SIGKILL))
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Active takes a unit that is reloading as up.
func (s *Systemd) Active(ctx context.Context, unit string) error {
	m, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer m.Close()
	state, err := text(ctx, m, unit, "ActiveState")
	switch {
	case err != nil:
		return err
	case state == "active" || state == "reloading" || state == "refreshing":
		return nil
	}
	return s.explain(ctx, m, unit, fmt.Errorf("the unit is %s", state))
}

// await waits for a job's result, as org.freedesktop.systemd1(5) names them.
func (s *Systemd) await(ctx context.Context, job string, result <-chan string) error {
	select {
	case got := <-result:
		switch got {
		case "done", "skipped":
			return nil
		case "canceled":
			return fmt.Errorf("systemd was told by somebody else to do something else before the %s was done", job)
		case "timeout":
			return fmt.Errorf("the unit did not %s within the time that its file sets", job)
		case "dependency":
			return fmt.Errorf("the %s needs another unit that failed", job)
		}
		return fmt.Errorf("the %s ended as %q", job, got)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// explain adds to an error what a user can do about it.
func (s *Systemd) explain(ctx context.Context, m manager, unit string, err error) error {
	if err == nil || errors.Is(err, ErrEnded) || errors.Is(err, ErrForced) || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	if load, failed := text(ctx, m, unit, "LoadState"); failed == nil && load == "not-found" {
		return fmt.Errorf("%w; hint: systemd knows no unit %s", err, unit)
	}
	return fmt.Errorf("%w; hint: systemctl status %s", err, unit)
}

// text is a property of a unit that is a string.
func text(ctx context.Context, m manager, unit, property string) (string, error) {
	p, err := m.GetUnitPropertyContext(ctx, unit, property)
	if err != nil {
		return "", fmt.Errorf("ask systemd for %s of %s: %w", property, unit, err)
	}
	value, ok := p.Value.Value().(string)
	if !ok {
		return "", fmt.Errorf("ask systemd for %s of %s: it is no text: %v", property, unit, p.Value)
	}
	return value, nil
}
