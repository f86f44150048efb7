// SPDX-License-Identifier: Apache-2.0

package application

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

// bus is a systemd that knows one unit.
type bus struct {
	mu     sync.Mutex
	log    []string
	result string            // of every job; "": it is under way until it is killed
	states map[string]string // by property
	closed int
	kills  int // until the stop ends
	job    chan<- string
}

func (b *bus) units() *Systemd {
	return &Systemd{connect: func(context.Context) (manager, error) { return b, nil }}
}

func (b *bus) answer(what, name, mode string, result chan<- string) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.log = append(b.log, what+" "+name+" "+mode)
	if b.job = result; result != nil && b.result != "" {
		result <- b.result
	}
	return 1, nil
}

func (b *bus) StartUnitContext(_ context.Context, name, mode string, result chan<- string) (int, error) {
	return b.answer("start", name, mode, result)
}

func (b *bus) StopUnitContext(ctx context.Context, name, mode string, result chan<- string) (int, error) {
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	return b.answer("stop", name, mode, result)
}

func (b *bus) KillUnitWithTarget(_ context.Context, name string, target dbus.Who, signal int32) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.log = append(b.log, fmt.Sprintf("kill %s %s %v", name, target, syscall.Signal(signal)))
	if b.kills--; b.kills == 0 {
		b.job <- "failed"
	}
	return nil
}

func (b *bus) GetUnitPropertyContext(_ context.Context, _, property string) (*dbus.Property, error) {
	return &dbus.Property{Name: property, Value: godbus.MakeVariant(b.states[property])}, nil
}

func (b *bus) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed++
}

func (b *bus) said() string { return strings.Join(b.log, ", ") }

func TestUnitNames(t *testing.T) {
	for entry, want := range map[string]string{
		"unit:postgresql.service": "postgresql.service",
		"unit:postgresql":         "postgresql.service",
		" unit: app.target ":      "app.target",
		"systemctl start x":       "",
	} {
		if unit, ok := unitOf(entry); ok != (want != "") || ok && unit != want {
			t.Errorf("%q: %q, %v", entry, unit, ok)
		}
	}
}

func TestUnitResults(t *testing.T) {
	for result, want := range map[string]string{
		"done":       "<nil>",
		"skipped":    "<nil>",
		"failed":     `the start ended as "failed"; hint: systemctl status x.service`,
		"timeout":    "the unit did not start within the time that its file sets; hint: systemctl status x.service",
		"dependency": "the start needs another unit that failed; hint: systemctl status x.service",
		"canceled":   "systemd was told by somebody else to do something else before the start was done; hint: systemctl status x.service",
	} {
		b := &bus{result: result}
		expect(t, result, fmt.Sprint(b.units().Start(t.Context(), "x.service")), want)
		expect(t, "calls", b.said(), "start x.service replace")
		if b.closed != 1 {
			t.Errorf("%s: closed %d times", result, b.closed)
		}
	}
	unknown := &bus{result: "failed", states: map[string]string{"LoadState": "not-found"}}
	expect(t, "unknown unit", fmt.Sprint(unknown.units().Stop(t.Context(), "x.service")), `the stop ended as "failed"; hint: systemd knows no unit x.service`)
}

// systemd would go on with a start that nobody waits for any more.
func TestUnitStartIsCalledOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bus{}
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(ErrForced) })
		if err := b.units().Start(ctx, "x.service"); !errors.Is(err, ErrForced) {
			t.Error(err)
		}
		expect(t, "calls", b.said(), "start x.service replace, stop x.service replace")
	})
}

func TestUnitKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bus{kills: 2}
		if err := b.units().Kill(t.Context(), "x.service"); err != nil {
			t.Error(err)
		}
		expect(t, "calls", b.said(), "stop x.service replace, kill x.service all killed, kill x.service all killed")
		hung := &bus{}
		ctx, cancel := withLimit(t.Context(), time.Second)
		defer cancel()
		expect(t, "hung", fmt.Sprint(hung.units().Kill(ctx, "x.service")), "took longer than its limit of 1s")
	})
}

func TestUnitActive(t *testing.T) {
	for state, want := range map[string]string{
		"active":    "<nil>",
		"reloading": "<nil>",
		"failed":    "the unit is failed; hint: systemctl status x.service",
		"inactive":  "the unit is inactive; hint: systemctl status x.service",
	} {
		b := &bus{states: map[string]string{"ActiveState": state, "LoadState": "loaded"}}
		expect(t, state, fmt.Sprint(b.units().Active(t.Context(), "x.service")), want)
	}
}

func TestUnitsInLists(t *testing.T) {
	r := newRunner(t, "")
	b := &bus{result: "done", states: map[string]string{"ActiveState": "failed"}}
	c := Commands{Runner: r, Units: b.units(), Start: []string{"unit:a", "unit:b", "true"}, Stop: []string{"true", "unit:a"}}
	a := New(Config{Steps: []Step{c.Step("application")}})
	term, err := a.Begin(t.Context(), 1, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := term.Up(); err != nil {
		t.Error(err)
	}
	expect(t, "check", fmt.Sprint(c.Check(t.Context(), term.Order(), "unit:a")), `check ("unit:a"): the unit is failed; hint: systemctl status a.service`)
	if err := a.Down(t.Context(), 1, "", Clean); err != nil {
		t.Error(err)
	}
	expect(t, "calls", b.said(), "start a.service replace, start b.service replace, stop a.service replace, stop b.service replace")
	if err := c.Check(t.Context(), term.Order(), "unit:a"); !errors.Is(err, ErrEnded) {
		t.Errorf("a check after the end: %v", err)
	}
	b.log = nil
	if err := a.Down(t.Context(), 2, "", Forced); err != nil {
		t.Error(err)
	}
	slices.Sort(b.log) // the two are killed at the same time
	expect(t, "forced", b.said(), "kill a.service all killed, kill b.service all killed, stop a.service replace, stop b.service replace")
	c.Units = nil
	expect(t, "without systemd", fmt.Sprint(c.start(t.Context(), Order{})), `start command 1 ("unit:a"): there is no service manager here; hint: write a command instead of unit:NAME`)
}

func TestNoSystemdHere(t *testing.T) {
	s := &Systemd{connect: func(context.Context) (manager, error) { return nil, errors.New("no bus") }}
	for _, err := range []error{
		s.Start(t.Context(), "x.service"), s.Stop(t.Context(), "x.service"),
		s.Kill(t.Context(), "x.service"), s.Active(t.Context(), "x.service"),
	} {
		expect(t, "error", fmt.Sprint(err), "no bus")
	}
}
