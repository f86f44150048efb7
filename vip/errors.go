// SPDX-License-Identifier: Apache-2.0

package vip

import "errors"

// ErrInUse is wrapped by what Judge returns when a stranger answers for an
// address: taking it would give two machines the same one.
var ErrInUse = errors.New("address in use by another machine")

// ErrLost is wrapped by what Renew returns when an address is no longer there
// to be renewed: somebody removed it, or this process came too late.
var ErrLost = errors.New("address lost")

// hintError is an error that a user can remedy. It reads as one line, and the
// hint is also there by itself for those who print it apart.
type hintError struct {
	err  error
	hint string
}

func (e *hintError) Error() string { return e.err.Error() + "; hint: " + e.hint }
func (e *hintError) Unwrap() error { return e.err }

// Hint is the remedy, without the error.
func (e *hintError) Hint() string { return e.hint }
