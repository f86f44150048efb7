// SPDX-License-Identifier: Apache-2.0

package control

import (
	"errors"
	"strings"
)

// Refusal is an error made for the person who asked: what was refused, and what
// would help.
type Refusal struct {
	Message string // one line
	Hint    string // the remedy, or empty
}

// hintMark stands between message and hint in the text of an error. It is a
// convention of the whole program, so that a hint survives wrapping, logs and
// rooms that do not know this package.
const hintMark = "; hint: "

// Error returns "message; hint: remedy".
func (r *Refusal) Error() string {
	if r.Hint == "" {
		return r.Message
	}
	return r.Message + hintMark + r.Hint
}

// Refuse makes a Refusal of any error: its text is cut at "; hint: ". It returns
// nil for nil.
func Refuse(err error) *Refusal {
	if err == nil {
		return nil
	}
	if r, ok := err.(*Refusal); ok {
		return r
	}
	text := err.Error()
	// A wrapped Refusal is known whole, whatever its texts hold.
	if r, ok := errors.AsType[*Refusal](err); ok && strings.HasSuffix(text, r.Error()) {
		return &Refusal{Message: strings.TrimSuffix(text, r.Error()) + r.Message, Hint: r.Hint}
	}
	message, hint, _ := strings.Cut(text, hintMark)
	return &Refusal{Message: message, Hint: hint}
}
