// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package application

import (
	"context"
	"errors"
	"fmt"
	"runtime"
)

var errLinuxOnly = fmt.Errorf("a service's commands are run on Linux, not on %s: %w", runtime.GOOS, errors.ErrUnsupported)

type crowd struct{}

func (r *Runner) open(context.Context) error { return errLinuxOnly }

// Run reports that there is nothing to run commands with.
func (r *Runner) Run(_ context.Context, _ Order, c Command) error {
	return &CommandError{Name: c.Name, Line: c.text(), Outcome: NotStarted, Cause: errLinuxOnly}
}

// End has nothing to end.
func (r *Runner) End(context.Context, Order) ([]Process, error) { return nil, errLinuxOnly }

// Kill has nothing to kill.
func (r *Runner) Kill(context.Context) ([]Process, error) { return nil, errLinuxOnly }
